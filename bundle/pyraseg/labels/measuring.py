# SPDX-License-Identifier: Apache-2.0
"""How large a segmented structure is, in how many pieces, and which values of the image it holds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import Geometry

#: Half a voxel to either side along each axis: from a voxel's center to the middles of its faces.
HALF_STEPS = {axes: np.concatenate([np.eye(axes), -np.eye(axes)]) / 2 for axes in (2, 3)}
#: Voxels are connected that share a face; within a slice, pixels that share an edge.
FACES = ndimage.generate_binary_structure(3, 1)
EDGES = FACES & np.array([False, True, False])[:, None, None]
ROWS_AT_ONCE = 512  # of a table of distances, so that it stays small


@dataclass(frozen=True)
class Measures:
    """Hold what was measured of one structure.

    Attributes:
        volume: mm³; None for a lone slice, whose width is unknown.
        in_plane: longest diameter within one slice of a piece that is connected there, mm; 0 where nothing was found.
        in_space: longest diameter of a connected piece, mm; None for a lone slice.
        components: number of connected pieces; voxels that share a face are connected, unless a gap is between.
        mean, deviation: of the image's values in its voxels, and their standard deviation about that mean (of all of
            them, not of a sample); None where no value is finite.
    """

    volume: float | None
    in_plane: float
    in_space: float | None
    components: int
    mean: float | None
    deviation: float | None


def measure(mask: np.ndarray, values: np.ndarray, geometry: Geometry) -> Measures:
    """Return the measures of a structure in slices of a patient.

    A diameter is the longest distance between the middles of two faces of a piece's voxels, which are the vertices of
    its mesh by marching cubes: the Maximum 3D Diameter of the Image Biomarker Standardisation Initiative (L0JK). Places
    are those in the patient, so that tilted and unevenly spaced stacks are right. Several pieces, such as both kidneys,
    do not add up: each is measured, and the longest diameter of any counts.

    Args:
        mask: (N, rows, columns) bool.
        values: (N, rows, columns), what the image holds there; NaN where it holds nothing.
        geometry: where the N slices lie. Each voxel counts for `Geometry.slice_widths` of its slice.

    Raises:
        PyrasegError: the shapes differ.

    >>> cube = np.zeros((6, 9, 9), bool)
    >>> cube[1:5, 2:6, 2:6] = True
    >>> affine, places = np.diag([1.0, 1, 2, 1]), np.arange(6)[:, None] * [0.0, 0, 2]
    >>> found = measure(cube, np.full(cube.shape, 40.0), Geometry.from_affine(affine, places))
    >>> found.volume, found.in_plane, round(found.in_space, 3), found.components, found.mean
    (128.0, 5.0, 9.055, 1, 40.0)
    """
    if mask.shape != values.shape or len(mask) != len(geometry):
        raise PyrasegError(
            f"A mask of {mask.shape} (slices, rows, columns), values of {values.shape} and {len(geometry)} places of "
            "slices do not belong together. Measure on the grid of the image."
        )
    inside = values[mask].astype(np.float64)
    inside = inside[np.isfinite(inside)]
    parts = [(mask[block], part) for block, part in geometry.parts() if mask[block].any()]
    boxes = [(_box(inner), part) for inner, part in parts]
    components = [_components(inner, geometry=part, start=start) for (inner, start), part in boxes]
    alone = len(geometry) == 1
    return Measures(
        volume=None if alone else float(np.count_nonzero(mask, axis=(1, 2)) @ geometry.voxel_volumes),
        in_plane=max((_longest_in_plane(inner, geometry.pixel_spacing) for (inner, _), _ in boxes), default=0.0),
        in_space=None if alone else _longest(piece for pieces in components for piece in pieces),
        components=sum(len(pieces) for pieces in components),
        mean=float(inside.mean()) if len(inside) else None,
        deviation=float(inside.std()) if len(inside) else None,
    )


def diameter(points: np.ndarray) -> float:
    """Return the longest distance between any two of points (n, d), which must not all lie in one line or plane.

    >>> diameter(np.array([[0, 0], [3, 0], [3, 4], [1, 1]]))
    5.0
    """
    corners = points[ConvexHull(points).vertices]
    starts = range(0, len(corners), ROWS_AT_ONCE)
    return max(float(cdist(corners[start : start + ROWS_AT_ONCE], corners).max()) for start in starts)


#: The longest diameter that a piece can have, and what measures it.
Piece = tuple[float, Callable[[], float]]


def _longest(pieces: Iterable[Piece]) -> float:
    """Return the longest diameter of any piece; pieces that are too small for it are not measured."""
    longest = 0.0
    for bound, measured in sorted(pieces, key=lambda piece: piece[0], reverse=True):
        if bound <= longest:
            break
        longest = max(longest, measured())
    return longest


def _box(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Return what of a mask holds anything, so that little has to be looked through, and its first slice."""
    box = ndimage.find_objects(mask.view(np.uint8))[0]
    return mask[box], box[0].start


def _longest_in_plane(mask: np.ndarray, pixel_spacing: tuple[float, float]) -> float:
    """Return the longest diameter of the regions of any slice, mm."""
    regions, _ = ndimage.label(mask, EDGES)

    def measured(number: int, box: tuple[slice, ...]) -> float:
        places = np.argwhere(_outermost(regions[box][0] == number))
        return diameter(_faces(places) * pixel_spacing)

    pieces: list[Piece] = []
    for number, box in enumerate(ndimage.find_objects(regions), 1):
        sides = np.array([side.stop - side.start for side in box[1:]]) * pixel_spacing
        pieces.append((float(np.hypot(*sides)), partial(measured, number, box)))
    return _longest(pieces)


def _components(mask: np.ndarray, *, geometry: Geometry, start: int) -> list[Piece]:
    """Return the connected pieces of a mask that begins with slice `start` of slices without a gap."""
    labels, _ = ndimage.label(mask, FACES)

    def measured(number: int, box: tuple[slice, ...]) -> float:
        slices, *sides = box
        corner = [start + slices.start, *(side.start for side in sides)]
        places = np.argwhere(_outermost(labels[box] == number)) + corner
        return diameter(geometry.points(_faces(places)[:, ::-1]))

    pieces: list[Piece] = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        slices, *sides = box
        steps = np.array([side.stop - side.start for side in sides]) * geometry.pixel_spacing
        heights = start + np.array([slices.start - 0.5, *range(slices.start, slices.stop), slices.stop - 0.5])
        way = geometry.points(heights[:, None] * (0, 0, 1))  # from slice to slice, which need not be straight
        bound = float(np.hypot(*steps) + np.linalg.norm(np.diff(way, axis=0), axis=1).sum())
        pieces.append((bound, partial(measured, number, box)))
    return pieces


def _faces(places: np.ndarray) -> np.ndarray:
    """Return the middles of the faces of voxels, or of the edges of pixels, at indices (n, d)."""
    axes = places.shape[1]
    return (places[:, None] + HALF_STEPS[axes]).reshape(-1, axes)


def _outermost(mask: np.ndarray) -> np.ndarray:
    """Return the voxels (..., rows, columns) that are the first or the last of their row and of their column.

    All corners of the convex hull are among them. Along the slices, which need not lie in a line, nothing is left out.
    """
    found = mask.copy()
    for axis in (-2, -1):
        anything = mask.any(axis, keepdims=True)
        first = mask.argmax(axis, keepdims=True)
        last = mask.shape[axis] - 1 - np.flip(mask, axis).argmax(axis, keepdims=True)
        ends = np.zeros_like(mask)
        np.put_along_axis(ends, first, anything, axis)
        np.put_along_axis(ends, last, anything, axis)
        found &= ends
    return found
