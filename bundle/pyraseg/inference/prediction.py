# SPDX-License-Identifier: Apache-2.0
"""What was found in one input, with its place in the patient, handed to the writers that were asked for."""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events
from monai.data import MetaTensor

from bundle.pyraseg.core import PyrasegError, at_failure, nearest_hint
from bundle.pyraseg.dicom import Geometry
from bundle.pyraseg.inference.counting import count_values
from bundle.pyraseg.inference.tally import Tally
from bundle.pyraseg.inference.writing import MISSING, ORIGIN, Table, Writer, write_outputs
from bundle.pyraseg.transforms import geometry_of


@dataclass(frozen=True, eq=False)
class Prediction:
    """Hold the label map of one input.

    Attributes:
        name: of the input, for messages and tables.
        stem: path of what is written about it, without a suffix.
        labels: class indices on the input's grid, (1, W, H[, D]) uint8.
        original: the input before preprocessing, (C, W, H[, D]), with the reader's metadata.
        unlike: how far it is from the images of the training, see `runtime.Guard.unlike`; None where nobody looked.
        uncertainty: how far other views disagree, for each class but the background, or each region, see `Uncertainty`;
            None for one that no view has found, or where nobody looked at all.
        probabilities: of each channel of the network on the input's grid, (C, W, H[, D]); None where none were kept.
    """

    name: str
    stem: Path
    labels: MetaTensor
    original: MetaTensor
    unlike: float | None = None
    uncertainty: tuple[float | None, ...] | None = None
    probabilities: MetaTensor | None = None

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
        return np.array([count_values(plane.ravel()) for plane in self.slices])

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
    def origin(self) -> dict[str, object]:
        """Return what the reader says of the DICOM series that this is, by names of `ORIGIN`."""
        return {name: self.original.meta[name] for name in (*ORIGIN, MISSING) if name in self.original.meta}

    @property
    def source_files(self) -> list[str]:
        """Return the DICOM file of each slice, with its header if the reader kept it; none for another format."""
        return list(self.original.meta.get("files", ()))

    @property
    def source_frames(self) -> list[int]:
        """Return the frame that each slice is in its DICOM file, from 1."""
        return [int(number) for number in self.original.meta.get("frame_numbers", ())]


#: The writers of `configs/inference.json`; a config may have its own besides.
OUTPUTS = ("labels", "overlay", "volumes", "seg", "sr", "rtstruct", "mesh", "capture")
#: What an output refers to, and is therefore written with it.
WITH = {"sr": "seg"}


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
        named = [one for name in names for one in (WITH.get(name), name) if one is not None]
        self.writers = {name: _wanted(name, writers) for name in named}
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
            stem, unlike = self.output_dir / name, item.get("unlike")
            uncertainty = _known(output["uncertainty"].tolist()) if "uncertainty" in output else None
            kept = output.get("probabilities")
            prediction = Prediction(name, stem, output["pred"], item["original"], unlike, uncertainty, kept)
            self._wait()
            assert self._pool is not None  # the run has started
            self._writing = self._pool.submit(
                write_outputs, prediction, self.writers, output_dir=self.output_dir, tally=self.tally
            )

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


def _known(uncertainty: Sequence[float]) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(one) else one for one in uncertainty)


def _wanted(name: str, writers: Mapping[str, Writer]) -> Writer:
    if name not in writers:
        raise PyrasegError(f"There is no output {name!r}; there are {', '.join(OUTPUTS)}.{nearest_hint(name, OUTPUTS)}")
    return writers[name]
