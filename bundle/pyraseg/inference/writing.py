# SPDX-License-Identifier: Apache-2.0
"""Hand what was found in an input to the writers that were asked for, and keep the books of what they wrote."""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bundle.pyraseg.core import describe, mendable
from bundle.pyraseg.inference.tally import Tally

logger = logging.getLogger(__name__)


class Named(Protocol):
    """What was found in one input."""

    @property
    def name(self) -> str: ...


#: Write something about a prediction and return the files, or None where there is no such thing for its input.
Writer = Callable[[Any], list[Path] | None]


@runtime_checkable
class Table(Protocol):
    """A writer of one file about all inputs of a run, which is told where the run starts and ends."""

    def start(self) -> None: ...

    def finish(self) -> None: ...


#: What tells which DICOM series an input was, and which of its phases, as the reader calls it.
ORIGIN = ("series_uid", "series_number", "series_description", "modality", "phase")
#: Which sequences an input of a model of several lacked, as the reader calls it.
MISSING = "missing_sequences"
#: The output that has the place of every slice, whether they lie on a grid or not.
EVERY_SLICE = "seg"


def write_outputs(found: Named, writers: Mapping[str, Writer], *, output_dir: Path, tally: Tally) -> None:
    """Write what was found in one input in every way that was asked for.

    Args:
        found: what the writers take.
        writers: by the names of the outputs. One that fails is reported, and the others go on.
        output_dir: folder of all results.
        tally: where the input is counted and failures are reported.
    """
    written: dict[str, list[Path]] = {}
    without, off_grid, failures = [], [], defaultdict(list)
    for kind, writer in writers.items():
        try:
            paths = writer(found)
        except Exception as error:
            off_grid += [kind] if _is_off_grid(error) else []
            failures[describe(error)].append(kind)
            continue
        if paths is None:
            without.append(kind)
        else:
            written[kind] = paths
    files = [path for paths in written.values() for path in paths]
    note = f" (no {', '.join(without)}: not for an input of this kind)" if without else ""
    if off_grid and written.get(EVERY_SLICE):  # the result is there, where each slice lies
        note += f" (no {', '.join(off_grid)}: its slices are on no regular grid; DICOM SEG has them as they lie)"
        failures = {reason: kinds for reason, kinds in failures.items() if set(kinds) - set(off_grid)}
    listed = ", ".join(path.relative_to(output_dir).as_posix() for path in files)
    logger.info("%s -> %s%s", found.name, listed or "nothing", note)
    if without and len(without) == len(writers):
        tally.fail(found.name, f"{', '.join(without)}: not for an input of this kind. Add other outputs.")
    for reason, kinds in failures.items():
        tally.fail(found.name, f"no {', '.join(kinds)}: {reason}")
    tally.done(found.name, files)


def _is_off_grid(error: Exception) -> bool:
    from bundle.pyraseg.dicom import NoRegularGrid  # for a photograph, pydicom is not loaded

    return isinstance(mendable(error), NoRegularGrid)
