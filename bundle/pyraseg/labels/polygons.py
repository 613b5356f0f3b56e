# SPDX-License-Identifier: Apache-2.0
"""Outlines of a mask as closed polygons, holes included, for what knows contours alone."""

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Return a closed polygon for each connected region of a mask, half a pixel outside its outermost pixels' centers.

    The polygons are those of marching squares (Lorensen and Cline, SIGGRAPH 1987, in two dimensions): every vertex lies
    half-way between a pixel of the mask and one outside, so the pixels whose centers are inside are the mask itself.
    Pixels that touch by a corner are two regions.

    A hole is joined to the outline around it by a keyhole: a channel of no width, there and back, which PS3.3
    C.8.8.6.3 describes for CLOSED_PLANAR contours. It runs through pixels of the region, from vertex to vertex.

    Args:
        mask: (rows, columns) bool.

    Returns:
        For each region its vertices (n, 2) as (row, column) in pixels, 0 being the center of the first pixel. The last
        vertex is not the first again.
    """
    regions, count = ndimage.label(mask)
    boxes = ndimage.find_objects(regions)
    polygons = []
    for number in range(1, count + 1):
        rows, columns = boxes[number - 1]
        region = np.pad(regions[rows, columns] == number, 1)
        rings = [ring[:-1] for ring in find_contours(region.astype(float), 0.5, fully_connected="low")]
        corner = np.array([rows.start - 1, columns.start - 1])
        polygons.append(_without_needless(_keyholed(rings)) + corner)
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
