# SPDX-License-Identifier: Apache-2.0
"""What was found in one input, with its place in the patient, handed to the writers that were asked for."""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from ignite.engine import Engine, Events
from monai.data import MetaTensor

from bundle.pyraseg.core import PyrasegError, at_failure, mendable, nearest_hint
from bundle.pyraseg.dicom import Geometry, NoRegularGrid
from bundle.pyraseg.inference.inputs import Tally, describe
from bundle.pyraseg.transforms import geometry_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Prediction:
    """Hold the label map of one input.

    Attributes:
        name: of the input, for messages and tables.
        stem: path of what is written about it, without a suffix.
        labels: class indices on the input's grid, (1, W, H[, D]) uint8.
        original: the input before preprocessing, (C, W, H[, D]), with the reader's metadata.
    """

    name: str
    stem: Path
    labels: MetaTensor
    original: MetaTensor

    @cached_property
    def slices(self) -> np.ndarray:
        """Return the class indices as DICOM orders them, (N, rows, columns) uint8; a photograph is one slice."""
        values = np.asarray(self.labels[0]).astype(np.uint8)
        return np.ascontiguousarray(values.T if values.ndim == 3 else values.T[None])

    @cached_property
    def geometry(self) -> Geometry | None:
        """Return where the slices lie in the patient, LPS mm, in the order of `slices`; None where unknown.

        They need not be sorted along the normal, nor be evenly spaced.
        """
        return geometry_of(self.original)

    @cached_property
    def voxels(self) -> np.ndarray:
        """Return how many voxels of each slice have which label value, (N, 256)."""
        return np.array([_count(plane.ravel()) for plane in self.slices])

    @cached_property
    def volumes(self) -> np.ndarray | None:
        """Return the volume of each label value, (256,) mm³; None where unknown.

        A slice stands for half the way to either neighbor, so it is right for uneven stacks too, and at a gap for no
        more than its own, see `Geometry.slice_widths`. The width of a lone DICOM slice is unknown: its nominal
        thickness says nothing about the distance to others.
        """
        if self.geometry is None or (len(self.geometry) == 1 and self.source_files):
            return None
        return self.geometry.voxel_volumes @ self.voxels

    @property
    def source_files(self) -> list[str]:
        """Return the DICOM file of each slice, with its header if the reader kept it; none for another format."""
        return list(self.original.meta.get("files", ()))

    @property
    def source_frames(self) -> list[int]:
        """Return the frame that each slice is in its DICOM file, from 1."""
        return [int(number) for number in self.original.meta.get("frame_numbers", ())]


#: Write something about a prediction and return the files, or None where there is no such thing for its input.
Writer = Callable[[Prediction], list[Path] | None]


@runtime_checkable
class Table(Protocol):
    """A writer of one file about all inputs of a run, which is told where the run starts and ends."""

    def start(self) -> None: ...

    def finish(self) -> None: ...


#: The writers of `configs/inference.json`; a config may have its own besides.
OUTPUTS = ("labels", "overlay", "volumes", "seg", "rtstruct", "mesh")
#: The output that has the place of every slice, whether they lie on a grid or not.
EVERY_SLICE = "seg"


class SavePredictions:
    """Write what was asked for about every input that the evaluator has segmented.

    The output holds the class indices on the grid of the input as `pred`, the batch the image before preprocessing as
    `original`. One prediction is written at a time, in a thread; the next one waits for it. A writer that fails is
    reported for its input, and the other writers go on.

    Args:
        output_dir: folder of the files; each is named as its input, below it.
        outputs: names of the writers that are wanted.
        writers: these writers, and perhaps others, by name.
        tally: where inputs are counted and failures reported.

    Raises:
        PyrasegError: there is no writer of a name.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        outputs: str | Sequence[str],
        writers: Mapping[str, Writer],
        tally: Tally,
    ) -> None:
        self.output_dir = Path(output_dir)
        names = [outputs] if isinstance(outputs, str) else outputs
        self.writers = {name: _wanted(name, writers) for name in names}
        self.tally = tally
        self._pool: ThreadPoolExecutor | None = None
        self._writing: Future | None = None

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)
        at_failure(engine, self._close)

    def start(self) -> None:
        for writer in self.writers.values():
            if isinstance(writer, Table):
                writer.start()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writing")
        self.tally.start()

    def __call__(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            name = item["name"]
            prediction = Prediction(name, self.output_dir / name, output["pred"], item["original"])
            self._wait()
            assert self._pool is not None  # the run has started
            self._writing = self._pool.submit(self.write, prediction)

    def finish(self) -> None:
        self._wait()
        self._close()
        self.tally.finish()

    def _close(self) -> None:
        """End the writing, and then the tables, whose folders others may have."""
        if self._pool is not None:
            self._pool.shutdown()
        for writer in self.writers.values():
            if isinstance(writer, Table):
                writer.finish()

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def write(self, prediction: Prediction) -> None:
        """Write one prediction in every way that was asked for."""
        written: dict[str, list[Path]] = {}
        without, off_grid, failures = [], [], defaultdict(list)
        for kind, writer in self.writers.items():
            try:
                paths = writer(prediction)
            except Exception as error:
                off_grid += [kind] if isinstance(mendable(error), NoRegularGrid) else []
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
        listed = ", ".join(path.relative_to(self.output_dir).as_posix() for path in files)
        logger.info("%s -> %s%s", prediction.name, listed or "nothing", note)
        if without and len(without) == len(self.writers):
            self.tally.fail(prediction.name, f"{', '.join(without)}: not for an input of this kind. Add other outputs.")
        for reason, kinds in failures.items():
            self.tally.fail(prediction.name, f"no {', '.join(kinds)}: {reason}")
        self.tally.done(prediction.name, files)


def _count(labels: np.ndarray) -> np.ndarray:
    """Return how many of some labels have which value, (256,), a block at a time: numpy makes 8 bytes of each."""
    counts = np.zeros(256, int)
    for start in range(0, labels.size, 1 << 22):
        block = labels[start : start + (1 << 22)]
        found = block[block > 0]  # a few
        counts += np.bincount(found, minlength=256)
        counts[0] += block.size - found.size
    return counts


def _wanted(name: str, writers: Mapping[str, Writer]) -> Writer:
    if name not in writers:
        raise PyrasegError(f"There is no output {name!r}; there are {', '.join(OUTPUTS)}.{nearest_hint(name, OUTPUTS)}")
    return writers[name]
