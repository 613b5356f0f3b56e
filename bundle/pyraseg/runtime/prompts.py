# SPDX-License-Identifier: Apache-2.0
"""Clicks and a box as a network for corrections takes them: maps of the image's size, drawn with NumPy alone."""

from collections.abc import Sequence

import numpy as np

from bundle.pyraseg.core import PyrasegError

#: The maps, in their order: where foreground and background were clicked, the box, the probability that the last answer
#: gave, and whether there is any prompt at all.
PROMPTS = ("foreground", "background", "box", "last", "any")
#: Radius of a click's disc, in pixels of the network's image.
RADIUS = 5
#: A click: column, row, and whether it is inside of what is meant.
Click = tuple[float, float, bool]


def draw_prompts(
    clicks: Sequence[Click], box: Sequence[float] | None, size: Sequence[int], last: np.ndarray
) -> np.ndarray:
    """Return clicks, box and last answer as maps (5, W, H) float32, see `PROMPTS`.

    As everywhere, the first axis of an image runs along its columns (from left to right), the second along its rows. A
    click is a disc of ones. Where discs of both kinds overlap, the later click is right; a click that is repeated
    changes nothing. The last map is 1 everywhere if there is a click or a box and 0 everywhere otherwise.

    Args:
        clicks: (column, row, whether it is foreground) of each, the oldest first, in pixels of the network's image; the
            center of the first pixel is (0, 0).
        box: around what is meant, two opposite corners (column, row, column, row), both of them inside; None: no box.
        size: of the image, (W, H).
        last: probability of the last answer, or of the plain model where there is none, (W, H).

    Raises:
        PyrasegError: a click is outside the image, or the box is, or `last` has another size.

    >>> maps = draw_prompts([(8, 9, True)], None, (20, 16), np.zeros((20, 16)))
    >>> maps.shape, float(maps[0].sum()), float(maps[0, 8, 9]), maps[4].all().item()
    ((5, 20, 16), 81.0, 1.0, True)
    """
    width, height = size
    if last.shape != (width, height):
        raise PyrasegError(
            f"The last answer is of the size {last.shape}, the image of {(width, height)}. Give its own."
        )
    maps = np.zeros((len(PROMPTS), width, height), np.float32)
    columns, rows = np.ogrid[:width, :height]
    for column, row, is_foreground in clicks:
        if not (-0.5 <= column < width - 0.5 and -0.5 <= row < height - 0.5):
            raise PyrasegError(
                f"There is a click at column {column:g} and row {row:g}, outside the image of {width} x {height} "
                "pixels. Click inside the image."
            )
        disc = (columns - column) ** 2 + (rows - row) ** 2 <= RADIUS**2
        maps[0][disc], maps[1][disc] = (1, 0) if is_foreground else (0, 1)
    if box is not None:
        left, right = sorted((box[0], box[2]))
        top, bottom = sorted((box[1], box[3]))
        inside = (columns >= left) & (columns <= right) & (rows >= top) & (rows <= bottom)
        if not inside.any():
            raise PyrasegError(
                f"The box from column {left:g} to {right:g} and row {top:g} to {bottom:g} holds no pixel of the image "
                f"of {width} x {height} pixels. Draw it around what is meant."
            )
        maps[2][inside] = 1
    maps[3] = last
    maps[4] = len(clicks) > 0 or box is not None
    return maps
