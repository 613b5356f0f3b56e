# SPDX-License-Identifier: Apache-2.0
"""What was found in one input, with its patient position."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from monai.data import MetaTensor

from bundle.pyraseg.dicom import Geometry
from bundle.pyraseg.transforms import geometry_of


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
        return np.array([np.bincount(plane.ravel(), minlength=256) for plane in self.slices])

    @cached_property
    def volumes(self) -> np.ndarray | None:
        """Return the volume of each label value, (256,) mm³; None where unknown.

        A slice stands for half the way to either neighbor, so it is right for uneven stacks too. The width of a lone
        DICOM slice is unknown: its nominal thickness says nothing about the distance to others.
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
