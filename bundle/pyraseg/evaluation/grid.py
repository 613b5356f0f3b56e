# SPDX-License-Identifier: Apache-2.0
"""Where the voxels of a case lie in the patient, and how large they are."""

from dataclasses import dataclass

import numpy as np
from monai.data import MetaTensor


@dataclass(frozen=True)
class Grid:
    """The voxels of a volume in patient coordinates, or the pixels of a picture that has none.

    A stack may be sheared (a tilted gantry) or unevenly spaced: its slices then lie where their headers say, which
    a spacing cannot tell.

    Args:
        axes: columns are the steps from a voxel to the next along the first two axes: (3, 2) mm, (2, 2) for pictures.
        slices: center of the first voxel of every slice, with the slice before the first and the one after the last,
            where they would be, (D + 2, 3) mm; None for pictures.
    """

    axes: np.ndarray
    slices: np.ndarray | None

    @classmethod
    def of(cls, image: MetaTensor) -> "Grid":
        """Return the grid of an image as the reader left it, (C, W, H[, D]).

        Millimeters need a place in the patient: pictures, projections and stacks without geometry are in pixels.
        """
        if image.ndim != 4 or not image.meta.get("has_geometry", True):
            return cls(np.eye(image.ndim - 1)[:, :2], None)
        affine = np.asarray(image.affine, float)
        positions = image.meta.get("slice_positions")
        if positions is None or len(positions) == 1:
            steps = np.arange(-1, image.shape[3] + 1)[:, None]
            return cls(affine[:3, :2], affine[:3, 3] + steps * affine[:3, 2])
        positions = np.asarray(positions, float) * (-1, -1, 1)  # DICOM's LPS to the RAS of the affine
        before, after = 2 * positions[0] - positions[1], 2 * positions[-1] - positions[-2]
        return cls(affine[:3, :2], np.concatenate([before[None], positions, after[None]]))

    @property
    def in_patient(self) -> bool:
        """Return whether distances are in millimeters, not in pixels."""
        return self.slices is not None

    @property
    def spacing(self) -> tuple[float, ...]:
        """Return the distance of neighbors along each axis, in mm or pixels; along the third the mean over slices."""
        plane = tuple(np.linalg.norm(self.axes, axis=0).tolist())
        if self.slices is None:
            return (*plane, 1.0)[: len(self.axes)]
        return (*plane, float(self._thickness.mean()))

    @property
    def _thickness(self) -> np.ndarray:
        """Return how much of the normal each slice takes, (D,) mm: half of the gaps on either side."""
        normal = np.cross(*self.axes.T)
        heights = self.slices @ (normal / np.linalg.norm(normal))
        return np.abs(heights[2:] - heights[:-2]) / 2

    def voxel_volumes(self) -> np.ndarray:
        """Return the volume of a voxel of each slice, (D,) ml."""
        return np.linalg.norm(np.cross(*self.axes.T)) * self._thickness / 1000

    def points(self, indices: np.ndarray) -> np.ndarray:
        """Return the places of indices, (N, 2 or 3), fractions included: (N, 3) mm, or pixels.

        Between two slices a place is interpolated; half a slice beyond the outer ones is still a place.
        """
        if self.slices is None:
            return indices.astype(float)
        below = np.clip(np.floor(indices[:, 2]).astype(int) + 1, 0, len(self.slices) - 2)
        share = (indices[:, 2] + 1 - below)[:, None]
        between = (1 - share) * self.slices[below] + share * self.slices[below + 1]
        return indices[:, :2] @ self.axes.T + between
