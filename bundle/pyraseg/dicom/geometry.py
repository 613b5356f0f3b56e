# SPDX-License-Identifier: Apache-2.0
"""Where slices lie in the patient: one geometry for every format, and the planes of DICOM frames that it is made of.

Coordinates are DICOM's patient coordinates in millimeters, LPS (x to the left, y to the back, z to the head).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.affines import nearest_slices, slice_widths, unit_normal, voxel_sizes
from bundle.pyraseg.dicom.headers import file_of, frame_count, functional_group, items_of, read_numbers

COSINE_TOLERANCE = 1e-3  # of a direction cosine: 0.06 degrees
SPACING_TOLERANCE = 1e-3  # relative, of the pixel spacing
DUPLICATE_DISTANCE = 1e-3  # mm along the normal: closer planes are the same plane
EVEN_RELATIVE, EVEN_ABSOLUTE = 0.05, 0.01  # of the slice spacing; mm
GAP, WIDE_GAP = 1.5, 4.0  # a step is a gap from so many of its neighboring steps on, or of the stack's finer ones
FINER = 25  # percentile of the steps that stands for the finer ones: two gaps side by side do not excuse each other
FINEST_SHARE = 20  # the finest step of a regular grid that holds uneven slices: this part of their smallest one
MOST_PLANES = 4096  # of such a grid
ON_GRID = 0.01  # mm from its plane of the grid that a slice may be
SLICE_SHARE, SLICE_FLOOR = 0.1, 0.1  # how far from a slice something still lies on it: of the slice spacing; mm
PLANE_ATTRIBUTES = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
#: All that `frame_planes` looks at.
PLACE_KEYWORDS = (
    *PLANE_ATTRIBUTES,
    "ImageType",
    "NumberOfFrames",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SliceVector",
    "DetectorInformationSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)


class NoRegularGrid(PyrasegError):
    """Say that no regular grid has a plane at each slice, so that a format that stores the place of each is needed."""


@dataclass(frozen=True)
class Plane:
    """Hold where one frame lies (PS3.3 C.7.6.2.1.1): position of the first pixel's center, direction cosines, spacing.

    ``orientation`` is the row cosine, then the column cosine; ``pixel_spacing`` is (between rows, between columns).
    """

    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    pixel_spacing: tuple[float, float]
    slice_thickness: float | None = None

    def is_parallel(self, other: "Plane") -> bool:
        """Return whether both orientations agree within ``COSINE_TOLERANCE``."""
        pairs = zip(
            self.orientation, other.orientation, strict=True
        )  # thousands of planes: NumPy takes 20 times longer
        return all(abs(own - its) <= COSINE_TOLERANCE for own, its in pairs)

    def has_spacing_of(self, other: "Plane") -> bool:
        """Return whether both pixel spacings agree within ``SPACING_TOLERANCE``."""
        pairs = zip(self.pixel_spacing, other.pixel_spacing, strict=True)
        return all(abs(own - its) <= SPACING_TOLERANCE * its for own, its in pairs)


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where N parallel slices lie in the patient, LPS mm.

    `read_series` has them sorted along their normal; those of other formats keep the order of their file. They need not
    be evenly spaced, nor stand above each other (a tilted gantry).

    Attributes:
        positions: (N, 3), mm, center of the first pixel of each slice.
        row_cosine: (3,), unit vector along a row, the direction of growing column index.
        column_cosine: (3,), unit vector along a column, the direction of growing row index.
        pixel_spacing: (between rows, between columns), mm.
        slice_thicknesses: (N,), mm, those in the headers, or None. They say nothing about the distance between slices.

    >>> geometry = Geometry.from_affine(np.diag([0.5, 0.5, 1, 1]), [[0, 0, 0], [0, 0, 3], [0, 0, 9]])
    >>> geometry.points([[2, 4, 1.5]]).tolist()
    [[1.0, 2.0, 6.0]]
    >>> geometry.voxel_volumes.tolist()
    [0.75, 0.75, 0.75]
    """

    positions: np.ndarray
    row_cosine: np.ndarray
    column_cosine: np.ndarray
    pixel_spacing: tuple[float, float]
    slice_thicknesses: np.ndarray | None = None

    @classmethod
    def from_affine(
        cls, affine: np.ndarray, positions: np.ndarray, *, slice_thickness: float | np.ndarray | None = None
    ) -> "Geometry":
        """Return the geometry of slices whose axes are those of an affine to LPS mm.

        Args:
            affine: (4, 4), from (column, row, slice). Its third axis only tells the thickness of a lone slice.
            positions: (N, 3), mm, center of the first pixel of each slice.
            slice_thickness: mm, where it is known, of all slices or of each.
        """
        columns, rows, _ = voxel_sizes(affine)
        row_cosine, column_cosine = affine[:3, 0] / columns, affine[:3, 1] / rows
        if len(positions) == 1:
            slice_thickness = abs(float(affine[:3, 2] @ unit_normal(row_cosine, column_cosine)))
        spacing = float(rows), float(columns)
        thicknesses = None if slice_thickness is None else np.full(len(positions), slice_thickness, float)
        return cls(np.asarray(positions, float), row_cosine, column_cosine, spacing, thicknesses)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def slice_thickness(self) -> float | None:
        """Return the largest thickness in mm, or None."""
        return None if self.slice_thicknesses is None else float(self.slice_thicknesses.max())

    @cached_property
    def normal(self) -> np.ndarray:
        """Return the unit normal, row cosine x column cosine, (3,)."""
        return unit_normal(self.row_cosine, self.column_cosine)

    @cached_property
    def distances(self) -> np.ndarray:
        """Return the positions projected on the normal, (N,), mm."""
        return self.positions @ self.normal

    @cached_property
    def gaps(self) -> np.ndarray:
        """Return the distances of neighboring slices along the normal, (N - 1,), mm, from the lowest slice on."""
        return np.diff(np.sort(self.distances))

    @property
    def slice_spacing(self) -> float | None:
        """Return the median distance of neighboring slices along the normal in mm; None for one slice."""
        return float(np.median(self.gaps)) if len(self) > 1 else None

    @cached_property
    def step(self) -> np.ndarray:
        """Return the mean vector from a slice to the next, (3,), mm.

        For one slice its length is unknown: it is the normal times the slice thickness, or times 1 mm where the header
        has none, and ``slice_spacing`` is None.
        """
        if len(self) > 1:
            return (self.positions[-1] - self.positions[0]) / (len(self) - 1)
        return self.normal * (self.slice_thickness or 1.0)

    @cached_property
    def is_evenly_spaced(self) -> bool:
        """Return whether the slices lie on the regular grid from the first to the last.

        No slice may be further from its place on that grid, in any direction, than 5 % of the mean spacing, or than
        0.01 mm where that is more. So neither a missing slice nor a slow change of spacing passes, and rounded header
        values do. One slice is evenly spaced.
        """
        grid = self.positions[0] + np.arange(len(self))[:, None] * self.step
        tolerance = max(EVEN_RELATIVE * abs(float(self.step @ self.normal)), EVEN_ABSOLUTE)
        return bool((np.linalg.norm(self.positions - grid, axis=1) <= tolerance).all())

    @property
    def pixel_steps(self) -> np.ndarray:
        """Return the vectors from a pixel to the next along a row and along a column, (2, 3), mm."""
        return np.stack([self.row_cosine * self.pixel_spacing[1], self.column_cosine * self.pixel_spacing[0]])

    @property
    def affine(self) -> np.ndarray:
        """Return the (4, 4) matrix from (column i, row j, slice k) to LPS millimeters (PS3.3 C.7.6.2.1.1).

        Its third column is ``step``: a tilt makes it an exact, sheared affine. Where the stack is not evenly spaced it
        is right for the first and last slice only.
        """
        matrix = np.eye(4)
        matrix[:3] = np.column_stack([*self.pixel_steps, self.step, self.positions[0]])
        return matrix

    @cached_property
    def blocks(self) -> list[np.ndarray]:
        """Return the slices of each block, their numbers ascending, from the lowest block on: gaps part the blocks.

        A step is a gap if it is more than 1.5 times as wide as either step beside it and as its two slices are thick,
        or more than 4 times as wide as the finer steps of the stack and as they are thick. So a missing slice is a gap,
        and a change of spacing, which goes on, is none. Of two slices only their thickness tells.
        """
        steps, order = self.gaps, np.argsort(self.distances, kind="stable")
        if len(steps) < 2 and self.slice_thicknesses is None:
            return [np.arange(len(self))]
        thick = np.zeros(len(self)) if self.slice_thicknesses is None else self.slice_thicknesses[order]
        thickness = np.maximum(thick[1:], thick[:-1])
        beside = np.maximum(np.append(0.0, steps[:-1]), np.append(steps[1:], 0.0))
        gaps = steps > WIDE_GAP * np.maximum(self._finer_step if len(steps) > 1 else 0.0, thickness)
        if len(steps) > 1:
            gaps |= steps > GAP * np.maximum(beside, thickness)
        return [np.sort(block) for block in np.split(order, np.flatnonzero(gaps) + 1)]

    @property
    def _finer_step(self) -> float:
        return float(np.percentile(self.gaps, FINER, method="lower"))

    def parts(self) -> list[tuple[np.ndarray, "Geometry"]]:
        """Return the slices of each block with their own geometry; a lone slice is as thick as it stands for."""
        if len(self.blocks) == 1:
            return [(self.blocks[0], self)]
        thick = np.full(len(self), self._finer_step) if self.slice_thicknesses is None else self.slice_thicknesses
        return [
            (block, replace(self, positions=self.positions[block], slice_thicknesses=thick[block]))
            for block in self.blocks
        ]

    @cached_property
    def slice_widths(self) -> np.ndarray:
        """Return how much of the normal each slice stands for, (N,) mm.

        In an evenly spaced stack that is the slice spacing, however its positions are rounded. Within a block of
        another one it is half the way to either neighbor, and at its ends as much to both sides. A slice between two
        gaps stands for its own thickness or, where that is unknown, for the finer steps of the stack. One slice alone
        has the length of ``step``.
        """
        if self.is_evenly_spaced and len(self.blocks) == 1:
            return np.full(len(self), abs(float(self.step @ self.normal)))
        widths = np.empty(len(self))
        for block, part in self.parts():
            widths[block] = slice_widths(part.distances) if len(block) > 1 else part.slice_widths
        return widths

    def regular_grid(self) -> "RegularGrid":
        """Return a regular grid, in the order of the slices, one of whose planes each slice is.

        An evenly spaced stack is its own. For another one the grid is finer, reaches as far as the outer slices stand
        for, and each plane shows the slice that it lies within; in a gap it shows none.

        Raises:
            NoRegularGrid: no grid that is not excessively fine has all slices on its planes.
        """
        if self.is_evenly_spaced:
            return RegularGrid(self.affine, np.arange(len(self)), np.arange(len(self)))
        line = self.positions[-1] - self.positions[0]
        along = (self.positions - self.positions[0]) @ line / np.linalg.norm(line)
        aside = self.positions - self.positions[0] - np.outer(along, line / np.linalg.norm(line))
        refusal = NoRegularGrid(
            f"its slices lie {self.gaps.min():.3f} to {self.gaps.max():.3f} mm apart, not on any regular grid, and "
            "NIfTI has no other. DICOM SEG has: ask for that."
        )
        if np.linalg.norm(aside, axis=1).max() > ON_GRID or (np.diff(along) <= 0).any():
            raise refusal
        for share in range(1, FINEST_SHARE + 1):
            step = along[-1] / max(np.rint(along[-1] / (np.diff(along).min() / share)), 1)
            planes = np.rint(along / step).astype(int)
            if np.abs(planes * step - along).max() <= ON_GRID:
                break
        else:
            raise refusal
        normal_step = abs(step * (line / np.linalg.norm(line)) @ self.normal)
        reach = self.slice_widths / 2 / normal_step  # in planes, to either side
        first, last = int(np.ceil(-reach[0] + 1e-6)), int(np.floor(planes[-1] + reach[-1] + 1e-6))
        if last - first >= MOST_PLANES:
            raise refusal
        places = np.arange(first, last + 1)
        lower = np.clip(np.searchsorted(planes, places, side="right") - 1, 0, len(self) - 1)
        upper = np.clip(lower + 1, 0, len(self) - 1)
        nearest = np.where(places - planes[lower] <= planes[upper] - places + 1e-6, lower, upper)
        nearest = np.where(places < 0, 0, nearest)
        nearest = np.where(places > planes[-1], len(self) - 1, nearest)
        inside = np.zeros(len(places), bool)
        for block in self.blocks:
            low, high = planes[block[0]] - reach[block[0]], planes[block[-1]] + reach[block[-1]]
            inside |= (places > low + 1e-6) & (places <= high + 1e-6)
        affine = self.affine
        affine[:3, 2] = step * line / np.linalg.norm(line)
        affine[:3, 3] = self.positions[0] + first * affine[:3, 2]
        return RegularGrid(affine, np.where(inside, nearest, -1), planes - first)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Return the mm between columns, between rows, and between slices in the mean."""
        return (*self.pixel_spacing[::-1], float(self.slice_widths.mean()))

    @property
    def voxel_volumes(self) -> np.ndarray:
        """Return the volume of a voxel of each slice, (N,) mm³."""
        return np.linalg.norm(np.cross(*self.pixel_steps)) * self.slice_widths

    @property
    def slice_tolerance(self) -> float:
        """Return how many mm from a slice something still lies on it."""
        if len(self) == 1:
            return SLICE_FLOOR
        closest = float(self.gaps.min())
        return min(max(SLICE_SHARE * closest, SLICE_FLOOR), 0.45 * closest)

    def points(self, indices: np.ndarray) -> np.ndarray:
        """Return the places (n, 3), mm, of indices (column, row, slice), (n, 3), fractions included.

        Between two slices a place is interpolated; beyond the outer ones it goes on as between the last two.
        """
        indices = np.asarray(indices, float)
        if len(self) == 1:
            along = self.positions[0] + indices[:, 2:] * self.step
        else:
            lower = np.clip(np.floor(indices[:, 2]).astype(int), 0, len(self) - 2)
            along = self.positions[lower]
            along = along + (indices[:, 2] - lower)[:, None] * (self.positions[lower + 1] - along)
        return along + indices[:, :2] @ self.pixel_steps

    def indices(self, points: np.ndarray) -> np.ndarray:
        """Return the indices (column, row, slice), (n, 3), fractions included, of places (n, 3), mm: see `points`.

        >>> geometry = Geometry.from_affine(np.diag([0.5, 0.5, 1, 1]), [[0, 0, 0], [0, 0, 3], [0, 0, 9]])
        >>> geometry.indices([[1, 2, 6], [0, 0, 12]]).tolist()
        [[2.0, 4.0, 1.5], [0.0, 0.0, 2.5]]
        """
        points = np.asarray(points, float)
        heights = points @ self.normal
        if len(self) == 1:
            along = (heights - self.distances[0]) / float(self.step @ self.normal)
            there = self.positions[0] + along[:, None] * self.step
        else:
            order = np.argsort(self.distances, kind="stable")
            distances, positions = self.distances[order], self.positions[order]
            lower = np.clip(np.searchsorted(distances, heights, side="right") - 1, 0, len(self) - 2)
            share = (heights - distances[lower]) / (distances[lower + 1] - distances[lower])
            there = positions[lower] + share[:, None] * (positions[lower + 1] - positions[lower])
            along = order[lower] + share * (order[lower + 1] - order[lower])
        in_plane = (points - there) @ np.linalg.pinv(self.pixel_steps)
        return np.column_stack([in_plane, along])

    def nearest_slices(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the slice nearest to each point (n, 3), (n,), and the signed mm from it along the normal, (n,)."""
        return nearest_slices(self.distances, points @ self.normal)

    def pixels_at(self, points: np.ndarray, slices: np.ndarray) -> np.ndarray:
        """Return the exact row and column of points (n, 3) on their slices (n,), (n, 2); pixel centers are integers."""
        axes = np.stack([self.column_cosine, self.row_cosine], axis=1)
        return (points - self.positions[slices]) @ axes / self.pixel_spacing


@dataclass(frozen=True, eq=False)
class RegularGrid:
    """A regular grid that holds slices, which need not be evenly spaced.

    Attributes:
        affine: (4, 4), from (column, row, plane) to LPS mm.
        sources: for each plane the slice that it shows, -1 for none.
        planes: for each slice the plane that it is, (N,).
    """

    affine: np.ndarray
    sources: np.ndarray
    planes: np.ndarray

    def fill(self, values: np.ndarray, *, empty: float = 0) -> np.ndarray:
        """Return the values (W, H, N) of slices on the planes, (W, H, D); those that show no slice are empty."""
        if np.array_equal(self.sources, np.arange(values.shape[2])):
            return values
        filled = values[:, :, self.sources]
        filled[:, :, self.sources < 0] = empty
        return filled


def frame_planes(dataset: Dataset) -> list[Plane | None]:
    """Return the plane of every frame; None where position, orientation or pixel spacing is absent.

    Multi-frame objects have them in functional groups, or as `_reconstructed` ones of nuclear medicine; the top level
    counts for a single frame only.

    Raises:
        PyrasegError: a value is malformed: no numbers, cosines that are not orthonormal, a spacing below zero.
    """
    count, where = frame_count(dataset), file_of(dataset)
    groups = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    planes: list[Plane | None] = []
    if (reconstructed := _reconstructed(dataset, where)) is not None:
        return [*reconstructed]
    for frame in range(count):
        top = dataset if count == 1 else Dataset()
        items = [functional_group(dataset, frame, group) or top for group in groups]
        pairs = zip(items, PLANE_ATTRIBUTES, (3, 6, 2), strict=True)
        position, orientation, spacing = (read_numbers(item, name, n, where) for item, name, n in pairs)
        if position is None or orientation is None or spacing is None:
            planes.append(None)
            continue
        _require_orthonormal(orientation, where)
        if min(spacing) <= 0:
            raise PyrasegError(f"{where}: PixelSpacing is {list(spacing)}, not positive. Correct the header.")
        thickness = _thickness(items[2], where)
        planes.append(Plane(position, orientation, spacing, thickness if thickness > 0 else None))  # pyrefly: ignore # counted
    return planes


def _reconstructed(dataset: Dataset, where: str) -> list[Plane] | None:
    """Return the planes of reconstructed slices of nuclear medicine, or None. Such an object tells that of the first.

    The others follow along the normal or, where their spacing is negative, against it (PS3.3 C.8.4.15); which frame is
    which slice stands in Slice Vector, since each may come several times.
    """
    kinds = dataset.get("ImageType") or ()
    if frame_count(dataset) == 1 or dataset.get("PerFrameFunctionalGroupsSequence") or "RECON" not in str(kinds):
        return None
    detectors = items_of(dataset, "DetectorInformationSequence", where)
    first = detectors[0] if detectors else dataset
    position = read_numbers(first, "ImagePositionPatient", 3, where)
    orientation = read_numbers(first, "ImageOrientationPatient", 6, where)
    spacing = read_numbers(dataset, "PixelSpacing", 2, where)
    between = read_numbers(dataset, "SpacingBetweenSlices", 1, where)
    if position is None or orientation is None or spacing is None or between is None or not between[0]:
        return None
    _require_orthonormal(orientation, where)
    count = frame_count(dataset)
    numbers = read_numbers(dataset, "SliceVector", count, where) or tuple(range(1, count + 1))
    thickness = _thickness(dataset, where)
    row, column = np.reshape(orientation, (2, 3))
    places = np.array(position) + np.outer(np.array(numbers) - 1, between[0] * np.cross(row, column))
    thick = thickness if thickness > 0 else None
    return [Plane(tuple(place), orientation, spacing, thick) for place in places.tolist()]  # pyrefly: ignore # counted


def _thickness(item: Dataset, where: str) -> float:
    """Return the slice thickness, 0 where it is unknown: nothing has to be refused for want of it."""
    try:
        return (read_numbers(item, "SliceThickness", 1, where) or (0.0,))[0]
    except PyrasegError:
        return 0.0


def stack_geometry(planes: Sequence[Plane]) -> tuple[Geometry, np.ndarray]:
    """Sort parallel planes along their normal; return the stack and the order, ``planes[order[k]]`` being slice k.

    Only orientation and position count, never SliceThickness, InstanceNumber or GantryDetectorTilt.

    Raises:
        PyrasegError: no planes, planes that are not parallel or differ in pixel spacing, two planes in one place.
    """
    if not planes:
        raise PyrasegError("There are no planes to stack.")
    first = planes[0]
    if not all(plane.is_parallel(first) and plane.has_spacing_of(first) for plane in planes):
        raise PyrasegError("The planes differ in orientation or pixel spacing. Stack those of one series only.")
    row, column = np.reshape(np.asarray(first.orientation, dtype=np.float64), (2, 3))
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row  # take rounding out, so that the affine is exact
    column = column / np.linalg.norm(column)
    positions = np.array([plane.position for plane in planes], dtype=np.float64)
    distances = positions @ np.cross(row, column)
    order = np.argsort(distances, kind="stable")
    if (np.diff(distances[order]) < DUPLICATE_DISTANCE).any():
        raise PyrasegError("Two planes have the same position along the normal. Choose one of them.")
    thick = np.array([plane.slice_thickness or 0.0 for plane in planes])[order]
    known = np.where(thick > 0, thick, thick.max()) if thick.any() else None
    return Geometry(positions[order], row, column, first.pixel_spacing, known), order


def _require_orthonormal(orientation: tuple[float, ...], where: str) -> None:
    row, column = np.reshape(orientation, (2, 3))
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], rtol=0, atol=1e-2):
        raise PyrasegError(f"{where}: ImageOrientationPatient {list(orientation)} is not orthonormal. Correct it.")
