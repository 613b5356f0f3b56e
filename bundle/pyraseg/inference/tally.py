# SPDX-License-Identifier: Apache-2.0
"""The books of a run over many inputs: what is done and what failed."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import RLock
from time import monotonic
from typing import Any

from tqdm import tqdm

from bundle.pyraseg.core import PyrasegError, describe

logger = logging.getLogger(__name__)


class Tally:
    """Keep the books of a run over many inputs; loading, network and writing report here, each from its own thread.

    Args:
        data: what `find_inputs` returned.
    """

    def __init__(self, data: Sequence[dict[str, Any]]) -> None:
        self.names = [item["name"] for item in data]
        #: What went wrong, by the name of the input.
        self.failures: dict[str, list[str]] = {}
        self._done: dict[str, set[Path]] = {}
        self._lock = RLock()
        self._bar: tqdm | None = None
        self._began = 0.0

    def start(self) -> None:
        """Begin anew, with a progress bar where a terminal shows it."""
        with self._lock:
            self.failures.clear()
            self._done.clear()
            self._began = monotonic()
            self._bar = tqdm(total=len(self.names), desc="Segmenting", unit="case", disable=None)

    def finish(self) -> None:
        """Close the progress bar and log how many inputs were segmented, and how fast: those whose files are there."""
        with self._lock:
            for name, files in list(self._done.items()):
                for path in sorted(path for path in files if not path.exists()):
                    files.discard(path)
                    self.fail(name, f"{path} was written and is gone.")
            if self._bar is not None:
                self._bar.close()
                self._bar = None
            lacking, failed = self._with_failures()
            told = f", {len(lacking)} of them without an output that was asked for" if lacking else ""
            told += f", {len(failed)} failed" if failed else ""
            good = len(self._done.keys() - set(failed))
            logger.info("%d of %d inputs segmented%s (%s)", good, len(self.names), told, self._rate())

    def done(self, name: str, files: Iterable[Path] = ()) -> None:
        """Count an input that nothing more is going to happen to, with the files of its results."""
        with self._lock:
            self._done.setdefault(name, set()).update(files)
            if self._bar is not None:
                self._bar.set_postfix_str(self._rate(), refresh=False)
                self._bar.update(len(self._done) - self._bar.n)

    def fail(self, name: str, error: Exception | str) -> None:
        """Keep and log why an input, or one of its outputs, failed; the run goes on."""
        reason = error if isinstance(error, str) else describe(error)
        with self._lock:
            self.failures.setdefault(name, []).append(reason)
            logger.warning("%s: %s", name, reason)
            self.done(name)

    def require_all(self) -> None:
        """Raise PyrasegError if any input failed or lacks an output; the message names each, with what to do."""
        lacking, failed = self._with_failures()
        parts = []
        if failed:
            others = ", the others were segmented" if len(failed) < len(self.names) else ""
            parts.append((f"{len(failed)} of {len(self.names)} inputs failed{others}", failed))
        if lacking:
            parts.append((f"{len(lacking)} of {len(self.names)} inputs were segmented, but lack an output", lacking))
        if parts:
            lines = []
            for head, names in parts:
                lines += [f"{head}:", *(f"  {name}: {' '.join(self.failures[name])}" for name in names)]
            raise PyrasegError("\n".join(lines))

    def _with_failures(self) -> tuple[list[str], list[str]]:
        """Return the names of inputs with failures that have results all the same, and of those that have none."""
        lacking = [name for name in sorted(self.failures) if self._done.get(name)]
        return lacking, [name for name in sorted(self.failures) if not self._done.get(name)]

    def _rate(self) -> str:
        minutes = (monotonic() - self._began) / 60
        return f"{len(self._done) / minutes:.1f} cases/min" if minutes > 0 else ""
