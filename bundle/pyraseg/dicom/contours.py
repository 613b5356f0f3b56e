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

    A pixel belongs to the region where its centre lies inside an odd number of contours, or on a contour: a hole's
    contour belongs to what surrounds it, and the channel of a keyhole to the region. So a contour within another is a
    hole, by whatever way it was written. Two equal contours are one, unless exclusive.

    Args:
        contours: corners (n, 2) as row and column; pixel centres are whole numbers.
        shape: rows, columns. What lies outside is cut off.
        exclusive: for each contour, whether it is meant to be combined by exclusive or (CLOSEDPLANAR_XOR), so that
            contours may cross and cancel.

    Returns:
        the mask (rows, columns) bool, and how many pairs of contours cross or are equal although not exclusive.
    """
    exclusive = exclusive or [False] * len(contours)
    kept: list[tuple[np.ndarray, np.ndarray, bool]] = []
    odd = 0
    for contour, is_exclusive in zip(contours, exclusive, strict=True):
        inside, edge = _fill(np.round(np.asarray(contour, float) / ROUNDING) * ROUNDING, shape)
        twins = [pair for pair in kept if not (pair[2] and is_exclusive) and _same(pair, (inside, edge))]
        odd += bool(twins)
        if twins:
            continue
        for others_inside, others_edge, other_is_exclusive in kept:
            odd += not (is_exclusive and other_is_exclusive) and bool(
                (inside & others_inside).any()
                and (inside & ~others_inside & ~others_edge).any()
                and (others_inside & ~inside & ~edge).any()
            )
        kept.append((inside, edge, is_exclusive))
    mask, edges = np.zeros(shape, bool), np.zeros(shape, bool)
    for inside, edge, _ in kept:
        mask ^= inside
        edges |= edge
    return mask | edges, odd


def _same(one: tuple, other: tuple) -> bool:
    return np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])


def _fill(contour: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return which pixel centres lie strictly inside a contour, and which on it."""
    inside, edge = np.zeros(shape, bool), np.zeros(shape, bool)
    first = np.maximum(np.floor(contour.min(axis=0)), 0).astype(int)
    last = np.minimum(np.ceil(contour.max(axis=0)) + 1, shape).astype(int)
    if (last > first).all():
        box = tuple(map(slice, first, last))
        found = grid_points_in_poly(tuple(last - first), contour - first, binarize=False)
        inside[box], edge[box] = found == 1, found > 1  # 2 on a corner, 3 on a side
    return inside, edge
