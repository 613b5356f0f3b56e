# SPDX-License-Identifier: Apache-2.0
"""From a mask to its outlines, and from contours back to a mask."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours, grid_points_in_poly

ROUNDING = 1e-6  # pixels: what arithmetic adds to a coordinate that was meant to be whole


def trace_outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Return the closed outlines of a mask, those of its holes too, half a pixel outside its outermost pixels' centers.

    They are those of marching squares (Lorensen and Cline, SIGGRAPH 1987, in two dimensions): every vertex lies
    half-way between a pixel of the mask and one outside, so the pixels whose centers are inside are the mask itself.
    Pixels that touch by a corner are apart.

    Args:
        mask: (rows, columns) bool.

    Returns:
        For each outline its vertices (n, 2) as (row, column) in pixels, 0 being the center of the first pixel. The last
        vertex is not the first again.

    >>> trace_outlines(np.ones((1, 1), bool))[0].tolist()
    [[0.5, 0.0], [0.0, -0.5], [-0.5, 0.0], [0.0, 0.5]]
    """
    padded = np.pad(mask, 1).astype(float)  # so that an outline closes at the border
    return [ring[:-1] - 1 for ring in find_contours(padded, 0.5, fully_connected="low")]


def trace_polygons(mask: np.ndarray, *, most: int | None = None) -> list[np.ndarray]:
    """Return a closed polygon for each connected region of a mask, of its outlines (see `trace_outlines`).

    A hole is joined to the outline around it by a keyhole: a channel of no width, there and back, which PS3.3
    C.8.8.6.3 describes for CLOSED_PLANAR contours. It runs through pixels of the region, from vertex to vertex.

    Args:
        mask: (rows, columns) bool.
        most: vertices of a polygon; a region whose polygon would have more is halved, and its halves in turn.

    Returns:
        For each region its vertices (n, 2) as (row, column) in pixels, 0 being the center of the first pixel. The last
        vertex is not the first again.
    """
    regions, count = ndimage.label(mask)
    boxes = ndimage.find_objects(regions)
    polygons = []
    for number in range(1, count + 1):
        rows, columns = boxes[number - 1]
        region, corner = regions[rows, columns] == number, np.array([rows.start, columns.start])
        polygon = _without_needless(_keyholed(trace_outlines(region)))
        if most is None or len(polygon) <= most or region.size == 1:
            polygons.append(polygon + corner)
            continue
        axis = int(np.argmax(region.shape))
        for half in np.array_split(np.arange(region.shape[axis]), 2):
            part = np.zeros_like(region)
            np.moveaxis(part, axis, 0)[half] = np.moveaxis(region, axis, 0)[half]
            polygons += [piece + corner for piece in trace_polygons(part, most=most)]
    return polygons


def _keyholed(rings: list[np.ndarray]) -> np.ndarray:
    """Join the rings of one region: the outer one, which reaches furthest to the left, and its holes, left ones first.

    To the left of a hole's leftmost vertex there are pixels of the region up to the next vertex in that row, which
    belongs to a ring that reaches further to the left and so is joined already.
    """
    outer, *holes = sorted(rings, key=lambda ring: ring[:, 1].min())
    for hole in holes:
        start = int(hole[:, 1].argmin())
        row, column = hole[start]
        before = np.flatnonzero((outer[:, 0] == row) & (outer[:, 1] < column))
        joint = before[outer[before, 1].argmax()]
        around = np.roll(hole, -start, axis=0)
        outer = np.concatenate([outer[: joint + 1], around, around[:1], outer[joint:]])
    return outer


def _without_needless(polygon: np.ndarray) -> np.ndarray:
    """Drop the vertices that lie on the straight way from the one before to the one after."""
    before, after = polygon - np.roll(polygon, 1, axis=0), np.roll(polygon, -1, axis=0) - polygon
    across = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    onward = (before * after).sum(axis=1) > 0  # and not back again, as at the end of a channel
    return polygon[~((across == 0) & onward)]


def fill_contours(
    contours: Sequence[np.ndarray], shape: tuple[int, int], *, exclusive: Sequence[bool] | None = None
) -> tuple[np.ndarray, int]:
    """Fill contours of one region by the even-odd rule.

    A pixel belongs to the region where its center lies inside an odd number of contours, or on a contour: a hole's
    contour belongs to what surrounds it, and the channel of a keyhole to the region. So a contour within another is a
    hole, by whatever way it was written. Two equal contours are one, unless exclusive.

    Args:
        contours: corners (n, 2) as row and column; pixel centers are whole numbers.
        shape: rows, columns. What lies outside is cut off.
        exclusive: for each contour, whether it is meant to be combined by exclusive or (CLOSEDPLANAR_XOR), so that
            contours may cross and cancel.

    Returns:
        the mask (rows, columns) bool, and how many pairs of contours cross or are equal although not exclusive.
    """
    exclusive = exclusive or [False] * len(contours)
    kept: list[_Filled] = []
    odd = 0
    for contour, is_exclusive in zip(contours, exclusive, strict=True):
        filled = _Filled(np.round(np.asarray(contour, float) / ROUNDING) * ROUNDING, shape, is_exclusive)
        partners = [other for other in kept if not (other.exclusive and is_exclusive)]
        if any(map(filled.equals, partners)):
            odd += 1
        else:
            odd += sum(map(filled.crosses, partners))
            kept.append(filled)
    mask, edges = np.zeros(shape, bool), np.zeros(shape, bool)
    for filled in kept:
        mask[filled.box] ^= filled.inside
        edges[filled.box] |= filled.edge
    return mask | edges, odd


class _Filled:
    """Hold which pixel centers lie strictly inside a contour, and which on it, within its bounding box."""

    def __init__(self, contour: np.ndarray, shape: tuple[int, int], exclusive: bool) -> None:
        self.first = np.clip(np.floor(contour.min(axis=0)), 0, shape).astype(int)
        self.end = np.clip(np.ceil(contour.max(axis=0)) + 1, self.first, shape).astype(int)
        self.box = tuple(map(slice, self.first, self.end))
        self.exclusive = exclusive
        found = grid_points_in_poly(tuple(self.end - self.first), contour - self.first, binarize=False)
        self.inside, self.edge = found == 1, found > 1  # 2 on a corner, 3 on a side

    def equals(self, other: "_Filled") -> bool:
        """Return whether two contours hold the same pixels."""
        pairs = ((self.inside, other.inside), (self.edge, other.edge))
        return self.box == other.box and all(np.array_equal(*pair) for pair in pairs)

    def crosses(self, other: "_Filled") -> bool:
        """Return whether two contours share pixels, and neither lies in the other."""
        first, end = np.maximum(self.first, other.first), np.minimum(self.end, other.end)
        if (first >= end).any():
            return False
        mine, theirs = (tuple(map(slice, first - one.first, end - one.first)) for one in (self, other))
        one, two = (self.inside[mine], self.edge[mine]), (other.inside[theirs], other.edge[theirs])
        within = (one[0] & (two[0] | two[1])).sum() == self.inside.sum()
        around = (two[0] & (one[0] | one[1])).sum() == other.inside.sum()
        return bool((one[0] & two[0]).any()) and not within and not around
