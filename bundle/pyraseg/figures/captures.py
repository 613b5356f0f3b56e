# SPDX-License-Identifier: Apache-2.0
"""Slices with outlines and a legend, for viewers that show pictures but no segmentations; without PyTorch."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont

from bundle.pyraseg.core import values_of
from bundle.pyraseg.figures.drawing import LONGEST, color_of
from bundle.pyraseg.labels import trace_outlines

NARROWEST = 512  # pixels of the shorter side; smaller images are enlarged, so that the legend can be read
WARNING = "NOT FOR DIAGNOSIS"
Font = FreeTypeFont | ImageFont.ImageFont
WHITE, YELLOW, BLACK = (255, 255, 255), (255, 220, 0), (0, 0, 0)


def slices_to_capture(areas: np.ndarray, most: int) -> list[int]:
    """Return the slices that are worth a picture, in their order.

    First those that show each structure largest: the smallest structures before larger ones, which other slices show as
    well. What is left of `most` is spread evenly over the slices on which anything was found, or over all of them where
    nothing was, so that a reader sees how far a structure reaches, and that an empty result is meant.

    Args:
        areas: pixels of each structure on each slice, (D, K).
        most: how many slices at most.

    >>> slices_to_capture(np.array([[0, 0], [5, 0], [9, 1], [9, 0], [7, 0], [0, 0]]), 3)
    [1, 2, 4]
    """
    sizes = areas.sum(axis=0)
    found = [k for k in np.argsort(sizes, kind="stable").tolist() if sizes[k] > 0]
    chosen = list(dict.fromkeys(int(areas[:, k].argmax()) for k in found))[:most]
    there = np.flatnonzero(areas.any(axis=1)) if found else np.arange(len(areas))
    others = np.setdiff1d(there, chosen)
    even = np.linspace(0, len(others) - 1, max(min(most - len(chosen), len(others)), 0))
    return sorted({*chosen, *others[np.rint(even).astype(int)].tolist()})


def draw_captures(
    images: np.ndarray,
    labels: np.ndarray,
    legend: Sequence[str],
    *,
    size: tuple[float, float],
    captions: Sequence[str],
    overlapping: bool = False,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return pictures of slices with the outlines of what was found, a legend below, and the words of `WARNING`.

    The image keeps the upper left corner and its axes, so that its place in the patient can be told of the picture.

    Args:
        images: RGB bytes, (N, H, W, 3).
        labels: label values on the same grid, (N, H, W) uint8.
        legend: what is said of each structure, in the order of their numbers; a picture has those that it shows.
        size: the width and the height at which nothing is distorted, in any unit.
        captions: a line below each picture.
        overlapping: the labels are values of regions, see `core.Structures`.

    Returns:
        RGB bytes, (N, rows, columns, 3), and the width and height of the image in them.
    """
    scale = min(max(1.0, NARROWEST / min(size)), LONGEST / max(size))
    width, height = (max(1, round(side * scale)) for side in size)
    letters = max(13, min(width, height) // 38)  # pixels
    font, line = ImageFont.load_default(letters), math.ceil(letters * 1.5)
    masks = [_masks(values, len(legend), overlapping=overlapping) for values in labels]
    columns = _column_count(legend, font, width, line)
    rows = max(math.ceil(max(len(shown), 1) / columns) for shown in masks)
    frames = np.zeros((len(images), height + (rows + 1) * line + line // 2, width, 3), np.uint8)
    for frame, pixels, shown, caption in zip(frames, images, masks, captions, strict=True):
        canvas = Image.fromarray(frame)
        canvas.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
        pen = ImageDraw.Draw(canvas)
        for number, mask in shown.items():
            _outline(pen, mask, (width, height), _color(number))
        pen.text((line // 3, line // 4), WARNING, YELLOW, font, stroke_width=2, stroke_fill=BLACK)
        pen.text((line // 3, height + line // 4), caption, WHITE, font)
        for place, number in enumerate(shown):
            left, top = place % columns * (width // columns) + line // 3, height + (1 + place // columns) * line
            pen.rectangle((left, top + line // 3, left + line // 2, top + line // 3 + line // 2), _color(number))
            pen.text((left + line * 3 // 4, top + line // 4), legend[number - 1], WHITE, font)
        if not shown:
            pen.text((line // 3, height + line + line // 4), "nothing found on this slice", WHITE, font)
        frame[...] = np.asarray(canvas)
    return frames, (width, height)


def _masks(values: np.ndarray, count: int, *, overlapping: bool) -> dict[int, np.ndarray]:
    """Return where each structure is that is there, by its number."""
    found = np.unique(values[values > 0]).tolist()
    masks = {}
    for number in range(1, count + 1):
        there = [value for value in values_of(number, count, overlapping=overlapping) if value in found]
        if there:
            masks[number] = np.isin(values, there)
    return masks


def _column_count(legend: Sequence[str], font: Font, width: int, line: int) -> int:
    """Return how many entries of a legend stand side by side."""
    longest = max((font.getlength(text) for text in legend), default=0)
    return max(1, int(width // (longest + 1.5 * line)))


def _outline(pen: ImageDraw.ImageDraw, mask: np.ndarray, size: tuple[int, int], color: tuple[int, ...]) -> None:
    """Draw the boundary of a mask, holes included, on a picture of a size (width, height)."""
    scale = np.array([size[1] / mask.shape[0], size[0] / mask.shape[1]])
    for ring in trace_outlines(mask):
        rows, columns = ((ring + 0.5) * scale - 0.5)[[*range(len(ring)), 0]].T  # centers of pixels are whole numbers
        pen.line(list(zip(columns.tolist(), rows.tolist(), strict=True)), color, width=max(1, min(size) // 300))


def _color(number: int) -> tuple[int, ...]:
    return tuple(color_of(np.array(number)).tolist())
