# SPDX-License-Identifier: Apache-2.0
"""The boundaries of a label map as paths of SVG."""

from collections.abc import Sequence

import numpy as np
from skimage.measure import approximate_polygon

from bundle.pyraseg.labels import trace_outlines

#: Pixels of the picture by which a path may leave the boundary: it halves the size of the paths and cannot be seen.
TOLERANCE = 0.35


def outline_paths(labels: np.ndarray, size: Sequence[float]) -> dict[int, str]:
    """Return for each class the boundary of its mask, holes included, as the `d` of an SVG path.

    Args:
        labels: class indices, (H, W).
        size: width and height of the picture that the paths are drawn on; (0, 0) is its upper left corner.

    Returns:
        By class index; classes that are not there are left out. Their coordinates have one digit behind the point.
    """
    height, width = labels.shape
    scale = np.array([size[1] / height, size[0] / width])
    paths = {}
    for value in np.unique(labels[labels > 0]).astype(int).tolist():
        rings = [(ring + 0.5) * scale for ring in trace_outlines(labels == value)]  # centers of pixels lie at halves
        paths[value] = "".join(_path(approximate_polygon(np.append(ring, ring[:1], 0), TOLERANCE)) for ring in rings)
    return paths


def _path(ring: np.ndarray) -> str:
    """Return a closed ring of (row, column), the first of which comes again at the end."""
    points = [f"{x:.1f} {y:.1f}".replace(".0", "") for y, x in ring[:-1]]
    return f"M{'L'.join(points)}Z"
