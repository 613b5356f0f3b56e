# SPDX-License-Identifier: Apache-2.0
"""Fill closed contours on a slice."""

from collections.abc import Sequence

import numpy as np
from skimage.measure import grid_points_in_poly

ROUNDING = 1e-6  # pixels: what arithmetic adds to a coordinate that was meant to be whole


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
