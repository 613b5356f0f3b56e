# SPDX-License-Identifier: Apache-2.0
"""Make DICOM objects of the images of a series: with an exported model here, with any model in another process."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.runtime import Model, seg_writer, segment


class Segmenter(Protocol):
    """Segment one series after the other."""

    def __call__(self, images: Sequence[Path], folder: Path, *, name: str) -> str:
        """Segment a series, write DICOM objects into a folder as `*.dcm`, and return what was found in words, or "".

        Args:
            images: the files of the series, the only ones in their folder.
            folder: of the objects, empty.
            name: of the series, for messages.
        """
        ...


@dataclass(frozen=True)
class Findings:
    """Hold what was found in a series.

    Attributes:
        voxels: of each structure.
        volumes: ml of each structure; none of an image without a patient position, or of a lone slice.
        unlike: how far the series is from those of the training, see `runtime.Guard.unlike`; None where nobody looked.
    """

    voxels: dict[str, int]
    volumes: dict[str, float]
    unlike: float | None

    def __str__(self) -> str:
        return f"voxels: {', '.join(f'{name} {count}' for name, count in self.voxels.items())}"


class RuntimeSegmenter:
    """Segment with an exported model, without PyTorch; it stays in memory, and writes a DICOM SEG.

    Args:
        model: that `pyraseg export` wrote.
        select: attributes that the slices of a series must have, where it holds several phases or echoes.
        refuse: in what images may not differ from those that the model is for, see `Purpose`; None: the modality.
        unlike: what is done about series that are unlike those of the training, see `runtime.Watch`.
        seg_type: see `seg_writer`.

    Raises:
        PyrasegError: the model has no code for a class.
    """

    def __init__(
        self,
        model: Model,
        *,
        select: Mapping[str, object] | None = None,
        refuse: Sequence[str] | None = None,
        unlike: str = "warn",
        seg_type: str = "BINARY",
    ) -> None:
        self.model = model
        self.select, self.refuse, self.unlike, self.seg_type = select, refuse, unlike, seg_type
        seg_writer(model, seg_type=seg_type)  # that it can be

    def __call__(self, images: Sequence[Path], folder: Path, *, name: str) -> str:
        return str(self.find(images, folder, name=name))

    def find(self, images: Sequence[Path], folder: Path, *, name: str, seed: str | None = None) -> Findings:
        """Write the SEG of a series as `series_seg.dcm`, and return what was found; see `Segmenter`.

        Args:
            images, folder, name: see there.
            seed: see `seg_writer`.
        """
        files = [str(file) for file in images]
        labels = segment(self.model, files, select=self.select, refuse=self.refuse, unlike=self.unlike, name=name)
        mask = np.stack(list(labels.slices))
        write = seg_writer(self.model, seg_type=self.seg_type, seed=seed)
        write(replace(labels, slices=iter(mask)), folder / "series")
        structures, geometry = self.model.structures, labels.geometry
        voxels, volumes = {}, {}
        for number, structure in list(enumerate(structures.names))[1:]:
            counts = np.count_nonzero(structures.mask(mask, number), axis=(1, 2))
            voxels[structure] = int(counts.sum())
            if geometry is not None and len(geometry) > 1:
                volumes[structure] = float(counts @ geometry.voxel_volumes) / 1000
        return Findings(voxels, volumes, labels.watch.value if labels.watch else None)


class ProgramSegmenter:
    """Segment with `pyraseg segment` in a process of its own, which takes every kind of model, and has every output.

    It starts anew for each series: that takes seconds, and what one series does to it harms no other.

    Args:
        model: file of weights.
        outputs: of DICOM, such as "seg".
        options: others of `pyraseg segment`, by their names.
        threads: of the network.
    """

    def __init__(self, model: Path, outputs: Sequence[str], options: Mapping[str, str], *, threads: int) -> None:
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.words = ["--model", str(model), "--outputs", ",".join(outputs)]
        self.words += [word for name, value in options.items() for word in (f"--{name}", value)]

    def __call__(self, images: Sequence[Path], folder: Path, *, name: str) -> str:
        with TemporaryDirectory(dir=images[0].parent.parent) as results:
            command = [sys.executable, "-m", "bundle.pyraseg", "segment", str(images[0].parent), results, *self.words]
            done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
            if done.returncode:
                said = [line for line in done.stderr.splitlines() if line.startswith("pyraseg: ")]
                reason = said[-1].removeprefix("pyraseg: ") if said else f"pyraseg segment ended with {done.returncode}"
                raise PyrasegError(f"{reason} All: pyraseg segment with {' '.join(self.words)}.")
            # A copy of the series, which is no result, is in a folder of its own.
            files = [file for file in sorted(Path(results).rglob("*.dcm")) if not file.parent.name.endswith("_series")]
            for number, file in enumerate(files):
                file.rename(folder / f"{number}_{file.name}")
        return ""
