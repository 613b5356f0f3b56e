# SPDX-License-Identifier: Apache-2.0
"""The pixels of an image's slices, as labels find them: their place in the patient, and the objects they came from."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bundle.pyraseg.dicom import DicomImage, StackGeometry
from bundle.pyraseg.labels.references import ImageUids

#: How far from a slice something still lies on it: a share of the slice spacing, and at least so many mm.
SLICE_SHARE, SLICE_FLOOR = 0.1, 0.1


@dataclass(frozen=True, eq=False)
class ImageGrid:
    """Hold where the pixels of parallel slices lie, in LPS mm, and which DICOM objects they came from.

    Attributes:
        shape: slices, rows, columns.
        positions: (N, 3) center of the first pixel of every slice; None where the image has no place in the patient.
        row_cosine: (3,) direction along a row, of growing column index.
        column_cosine: (3,) direction along a column, of growing row index.
        pixel_spacing: mm between rows, between columns.
        series_uid, frame_of_reference_uid: "" where the image has none.
        sop_instance_uids, frame_numbers: for each slice; empty where unknown.
    """

    shape: tuple[int, int, int]
    positions: np.ndarray | None = None
    row_cosine: np.ndarray | None = None
    column_cosine: np.ndarray | None = None
    pixel_spacing: tuple[float, float] = (1.0, 1.0)
    series_uid: str = ""
    frame_of_reference_uid: str = ""
    sop_instance_uids: tuple[str, ...] = ()
    frame_numbers: tuple[int, ...] = ()

    @classmethod
    def of(cls, image: DicomImage) -> "ImageGrid":
        """Return the grid of a series that `read_series` returned."""
        return cls.at(
            image.pixels.shape[:3],
            image.geometry,
            series_uid=image.series_uid,
            frame_of_reference_uid=image.frame_of_reference_uid,
            sop_instance_uids=image.sop_instance_uids,
            frame_numbers=image.frame_numbers,
        )

    @classmethod
    def at(cls, shape: tuple[int, int, int], geometry: StackGeometry | None, **origin: Any) -> "ImageGrid":
        """Return the grid of slices that lie as a geometry says, or nowhere; `origin` is what else this class holds."""
        place = {}
        if geometry is not None:
            names = ("positions", "row_cosine", "column_cosine", "pixel_spacing")
            place = {name: getattr(geometry, name) for name in names}
        return cls(shape, **place, **origin)

    @cached_property
    def uids(self) -> ImageUids:
        """Return the UIDs by which a label refers to the image."""
        return ImageUids.known(self.sop_instance_uids, [self.series_uid], [self.frame_of_reference_uid])

    @cached_property
    def normal(self) -> np.ndarray:
        """Return the unit normal of the slices, (3,)."""
        return np.cross(self.row_cosine, self.column_cosine)

    @cached_property
    def slice_spacing(self) -> float | None:
        """Return the smallest distance of two slices in mm; None for one slice."""
        return float(np.diff(np.sort(self.positions @ self.normal)).min()) if len(self.positions) > 1 else None

    @property
    def slice_tolerance(self) -> float:
        """Return how many mm from a slice something still lies on it."""
        if self.slice_spacing is None:
            return SLICE_FLOOR
        return min(max(SLICE_SHARE * self.slice_spacing, SLICE_FLOOR), 0.45 * self.slice_spacing)

    def nearest_slices(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the slice nearest to each point (n, 3), (n,), and the signed mm from it along the normal, (n,)."""
        heights = self.positions @ self.normal
        order = np.argsort(heights)
        middles = (heights[order][1:] + heights[order][:-1]) / 2
        at = points @ self.normal
        nearest = order[np.searchsorted(middles, at)]
        return nearest, at - heights[nearest]

    def pixels_at(self, points: np.ndarray, slices: np.ndarray) -> np.ndarray:
        """Return the exact row and column of points (n, 3) on their slices (n,), (n, 2); pixel centers are integers."""
        axes = np.stack([self.column_cosine, self.row_cosine], axis=1)
        return (points - self.positions[slices]) @ axes / self.pixel_spacing
