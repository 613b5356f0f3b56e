# SPDX-License-Identifier: Apache-2.0
"""Place slices in the patient: planes, stacks of parallel planes, and their affine.

Coordinates are DICOM's patient coordinates in millimeters, LPS (x to the left, y to the back, z to the head).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.headers import file_of, frame_count, functional_group, read_numbers

COSINE_TOLERANCE = 1e-3  # of a direction cosine: 0.06 degrees
SPACING_TOLERANCE = 1e-3  # relative, of the pixel spacing
DUPLICATE_DISTANCE = 1e-3  # mm along the normal: closer planes are the same plane
EVEN_RELATIVE, EVEN_ABSOLUTE = 0.05, 0.01  # of the slice spacing; mm
TILT_ANGLE, TILT_DRIFT = 0.1, 0.1  # degrees; mm over the whole stack
PLANE_ANGLE = 30.0  # degrees between the normal and a patient axis: the largest gantry tilt is still axial
PLANE_ATTRIBUTES = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


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
        return bool(np.allclose(self.orientation, other.orientation, rtol=0, atol=COSINE_TOLERANCE))

    def has_spacing_of(self, other: "Plane") -> bool:
        """Return whether both pixel spacings agree within ``SPACING_TOLERANCE``."""
        return bool(np.allclose(self.pixel_spacing, other.pixel_spacing, rtol=SPACING_TOLERANCE, atol=0))


@dataclass(frozen=True, eq=False)
class StackGeometry:
    """Hold N parallel slices, sorted along their normal.

    Attributes:
        positions: (N, 3), mm, center of the first pixel of each slice.
        row_cosine: (3,), unit vector along a row, the direction of growing column index.
        column_cosine: (3,), unit vector along a column, the direction of growing row index.
        pixel_spacing: (between rows, between columns), mm.
        slice_thickness: mm, from the header, or None. It says nothing about the distance between slices.
    """

    positions: np.ndarray
    row_cosine: np.ndarray
    column_cosine: np.ndarray
    pixel_spacing: tuple[float, float]
    slice_thickness: float | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def normal(self) -> np.ndarray:
        """Return the unit normal, row cosine x column cosine, (3,)."""
        return np.cross(self.row_cosine, self.column_cosine)

    @cached_property
    def distances(self) -> np.ndarray:
        """Return the positions projected on the normal, (N,), mm, ascending."""
        return self.positions @ self.normal

    @cached_property
    def slice_spacing(self) -> float | None:
        """Return the median distance of neighboring slices along the normal in mm; None for one slice."""
        return float(np.median(np.diff(self.distances))) if len(self) > 1 else None

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
        tolerance = max(EVEN_RELATIVE * float(self.step @ self.normal), EVEN_ABSOLUTE)
        return bool((np.linalg.norm(self.positions - grid, axis=1) <= tolerance).all())

    @cached_property
    def tilt(self) -> float:
        """Return the angle between the step from slice to slice and the normal, in degrees (a gantry tilt)."""
        along = float(self.step @ self.normal)
        return float(np.degrees(np.arctan2(np.linalg.norm(self.step - along * self.normal), along)))

    @property
    def is_tilted(self) -> bool:
        """Return whether the tilt exceeds 0.1 degrees and moves the stack sideways by more than 0.1 mm in all."""
        sideways = np.linalg.norm(self.step - (self.step @ self.normal) * self.normal) * (len(self) - 1)
        return self.tilt > TILT_ANGLE and bool(sideways > TILT_DRIFT)

    @property
    def affine(self) -> np.ndarray:
        """Return the (4, 4) matrix from (column i, row j, slice k) to LPS millimeters (PS3.3 C.7.6.2.1.1).

        Its third column is ``step``: a tilt makes it an exact, sheared affine. Where the stack is not evenly spaced it
        is right for the first and last slice only.
        """
        matrix = np.eye(4)
        matrix[:3, 0] = self.row_cosine * self.pixel_spacing[1]
        matrix[:3, 1] = self.column_cosine * self.pixel_spacing[0]
        matrix[:3, 2] = self.step
        matrix[:3, 3] = self.positions[0]
        return matrix

    @property
    def plane(self) -> str:
        """Return "axial", "coronal" or "sagittal" for a normal within 30 degrees of z, y or x; else "oblique"."""
        axis = int(np.argmax(np.abs(self.normal)))
        if abs(self.normal[axis]) < np.cos(np.radians(PLANE_ANGLE)):
            return "oblique"
        return ("sagittal", "coronal", "axial")[axis]

    def require_regular(self) -> None:
        """Raise PyrasegError unless the slices make a regular volume: two at least, evenly spaced; tilt is allowed."""
        if len(self) < 2:
            raise PyrasegError("One slice makes no volume: its spacing is unknown. Work slice by slice.")
        if not self.is_evenly_spaced:
            steps = np.diff(self.distances)
            widest = int(np.argmax(np.abs(steps - np.median(steps))))
            raise PyrasegError(
                f"The {len(self)} slices are not evenly spaced: neighbors are {steps.min():.3f} to {steps.max():.3f} "
                f"mm apart (the oddest step is between slices {widest + 1} and {widest + 2}), so they make no regular "
                "volume. Add the missing slices, or work slice by slice."
            )


def frame_planes(dataset: Dataset) -> list[Plane | None]:
    """Return the plane of every frame; None where position, orientation or pixel spacing is absent.

    Multi-frame objects have them in functional groups; the top level counts for a single frame only.

    Raises:
        PyrasegError: a value is malformed: no numbers, cosines that are not orthonormal, a spacing below zero.
    """
    count, where = frame_count(dataset), file_of(dataset)
    groups = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    planes: list[Plane | None] = []
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
        thickness = (read_numbers(items[2], "SliceThickness", 1, where) or (0.0,))[0]
        planes.append(Plane(position, orientation, spacing, thickness if thickness > 0 else None))
    return planes


def stack_geometry(planes: Sequence[Plane]) -> tuple[StackGeometry, np.ndarray]:
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
        raise PyrasegError("Two planes lie in the same place along the normal. Choose one of them.")
    return StackGeometry(positions[order], row, column, first.pixel_spacing, first.slice_thickness), order


def _require_orthonormal(orientation: tuple[float, ...], where: str) -> None:
    row, column = np.reshape(orientation, (2, 3))
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], rtol=0, atol=1e-2):
        raise PyrasegError(f"{where}: ImageOrientationPatient {list(orientation)} is not orthonormal. Correct it.")
