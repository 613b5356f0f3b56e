# SPDX-License-Identifier: Apache-2.0
"""Load and segment inputs one by one, keep the books of what is done and what failed, and let none stop the others."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import RLock
from time import monotonic
from typing import Any

from ignite.engine import Engine
from monai.data import MetaTensor, list_data_collate
from torch.utils.data import IterableDataset
from tqdm import tqdm

from bundle.pyraseg.core import PyrasegError, mendable, root_of
from bundle.pyraseg.core import describe as describe_any
from bundle.pyraseg.inference.inferers import is_out_of_memory

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


def describe(error: Exception) -> str:
    """Return what a person has to know of an error, `core.describe`, torch's want of memory included."""
    if mendable(error) is None and is_out_of_memory(root_of(error)):
        return describe_any(MemoryError())
    return describe_any(error)


class InputDataset(IterableDataset):
    """Yield the inputs that can be loaded; the next one is loaded, in a thread, while one is being segmented.

    So no more than one volume waits. What cannot be loaded is reported and passed over.

    Args:
        data: what `find_inputs` returned.
        transform: preprocessing of an item, {"image": path} -> {"image": tensor, ...}.
        tally: where a failure is reported.
    """

    def __init__(self, data: Sequence[dict[str, Any]], transform: Callable[[dict], dict], *, tally: Tally) -> None:
        self.data = list(data)
        self.transform = transform
        self.tally = tally

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with ThreadPoolExecutor(1, thread_name_prefix="loading") as pool:
            waiting: Future | None = None
            for item in [*self.data, None]:
                current, waiting = waiting, pool.submit(self._load, item) if item is not None else None
                loaded = [] if current is None else [found for found in [current.result()] if found is not None]
                del current  # else it keeps the volume until the next one is there, as a name of it would
                if loaded:
                    yield loaded.pop()

    def _load(self, item: dict[str, Any]) -> dict[str, Any] | None:
        if "fault" in item:
            self.tally.fail(item["name"], item["fault"])
            return None
        try:
            return self.transform(dict(item))
        except Exception as error:
            self.tally.fail(item["name"], error)
            return None


def as_batch(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one input as a batch, as `list_data_collate` does, without a copy of its images."""
    (item,) = items
    images = {key: value for key, value in item.items() if isinstance(value, MetaTensor)}
    batch = list_data_collate([{**item, **{key: image[..., :1] for key, image in images.items()}}])
    for key, image in images.items():
        batch[key] = image.as_tensor()[None].as_subclass(MetaTensor).copy_meta_from(batch[key])
    return batch


class SegmentOne:
    """Be the iteration of a `SupervisedEvaluator`: its own one, whose failure counts for its input alone.

    Args:
        tally: where a failure is reported. The batch of the input is empty afterwards, so that handlers pass it over.
    """

    def __init__(self, *, tally: Tally) -> None:
        self.tally = tally

    def __call__(self, engine: Engine, batch: dict[str, Any]) -> Any:
        (name,) = batch["name"]
        try:
            return engine._iteration(engine, batch)  # the network and, by its events, the postprocessing
        except Exception as error:
            self.tally.fail(name, error)
        engine.state.batch, engine.state.output = [], []
        return engine.state.output
