# SPDX-License-Identifier: Apache-2.0
"""Contours of regions on a grid, and what is known of them in closed form."""

import numpy as np

SHAPE = (90, 110)


def regular(center: tuple, radius: tuple, corners: int, turn: float = 0.0) -> np.ndarray:
    angle = 2 * np.pi * np.arange(corners) / corners + turn
    return np.stack([center[0] + radius[0] * np.sin(angle), center[1] + radius[1] * np.cos(angle)], axis=1)


def moments(contour: np.ndarray) -> np.ndarray:
    """Return area, area x row and area x column of a polygon, by the shoelace formula."""
    (r, c), (s, d) = contour.T, np.roll(contour, -1, axis=0).T
    cross = r * d - s * c
    found = np.array([cross.sum() / 2, ((r + s) * cross).sum() / 6, ((c + d) * cross).sum() / 6])
    return found * np.sign(found[0])


def perimeter(contour: np.ndarray) -> float:
    return float(np.linalg.norm(contour - np.roll(contour, -1, axis=0), axis=1).sum())


STAR = np.concatenate(np.stack([regular((44.3, 50.2), (38, 40), 7), regular((44.3, 50.2), (17, 19), 7, np.pi / 7)], 1))
OUTER, INNER = regular((43.7, 52.4), (35.2, 41.1), 120), regular((47.1, 49.8), (15.3, 12.2), 60)
KEYHOLE = np.concatenate([OUTER, OUTER[:1], INNER, INNER[:1]])  # out and back along the same channel
ISLAND, APART = regular((46.2, 50.7), (5.1, 6.2), 40), regular((82.3, 100.9), (6.1, 7.7), 5)
REGIONS = {
    "triangle": ([regular((40.1, 50.3), (30, 38), 3, 0.3)], [1]),
    "turned rectangle": ([np.array([[10.2, 40.7], [60.4, 90.1], [75.9, 72.3], [25.7, 22.9]])], [1]),
    "ellipse": ([OUTER], [1]),
    "star": ([STAR], [1]),
    "star, the other way round": ([STAR[::-1]], [1]),
    "hole": ([OUTER, INNER], [1, -1]),
    "hole named first": ([INNER, OUTER], [-1, 1]),
    "island in a hole, and one apart": ([OUTER, INNER, ISLAND, APART], [1, -1, 1, 1]),
}
