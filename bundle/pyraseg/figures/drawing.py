# SPDX-License-Identifier: Apache-2.0
"""Bytes and classes as a picture, in colors that tell classes apart, with NumPy and Pillow alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from bundle.pyraseg.core import replacing

#: Colors of the classes, told apart by color-blind readers too (Okabe and Ito, "Color Universal Design", 2008).
COLORS = np.array(
    [
        (0, 0, 0),
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
    ],
    np.uint8,
)
OPACITY = 0.45
MARGIN = 18  # pixels for the captions
NARROWEST = 256  # pixels; smaller images are enlarged
LONGEST = 2048  # pixels; larger images are reduced


def color_of(labels: np.ndarray) -> np.ndarray:
    """Return the RGB colors of class indices, (...) -> (..., 3); beyond the seventh class they repeat."""
    return COLORS[np.where(labels > 0, (labels.astype(int) - 1) % (len(COLORS) - 1) + 1, 0)]


def compose(
    views: Sequence[tuple[np.ndarray, Sequence[np.ndarray], tuple[float, float]]], class_names: Sequence[str]
) -> Image.Image:
    """Return an RGB picture: a row a view, with original, truth where there is one, prediction and overlay as columns.

    Args:
        views: RGB bytes, (H, W, 3); class indices, (H, W), of the truth, if it is known, and of the prediction; and the
            width and the height at which nothing is distorted.
        class_names: names of all classes, background first.
    """
    rows = [np.concatenate(_row(*view), axis=1) for view in views]
    found = np.unique(np.concatenate([np.unique(classes) for _, shown, _ in views for classes in shown]))
    captions = ["original", *(["truth"] if len(views[0][1]) == 2 else []), "prediction", "overlay"]
    return _captioned(Image.fromarray(np.concatenate(rows)), captions, class_names, found)


def write_overlay(picture: Image.Image, stem: Path) -> Path:
    """Write the picture of an input as `<name>_overlay.png`, and return the path; `stem` is without a suffix."""
    path = stem.with_name(f"{stem.name}_overlay.png")
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")
    return path


def _row(image: np.ndarray, maps: Sequence[np.ndarray], size: tuple[float, float]) -> list[np.ndarray]:
    """Return an image, its label maps and the last one laid over it, with square pixels; see `display`.

    They are enlarged where the image is narrow, and never longer than `LONGEST`, however long the image is.
    """
    scale = min(max(1.0, NARROWEST / min(size)), LONGEST / max(size))
    pixels = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    gray = np.asarray(Image.fromarray(image).resize(pixels, Image.Resampling.BILINEAR))
    pictures = [Image.fromarray(labels.astype(np.uint8)) for labels in maps]
    maps = [np.asarray(picture.resize(pixels, Image.Resampling.NEAREST)) for picture in pictures]
    colors = [color_of(labels) for labels in maps]
    found = (maps[-1] > 0)[..., None]
    blended = np.where(found, (1 - OPACITY) * gray + OPACITY * colors[-1], gray).astype(np.uint8)
    return [gray, *colors, blended]


def _captioned(
    picture: Image.Image, captions: Sequence[str], class_names: Sequence[str], found: np.ndarray
) -> Image.Image:
    canvas = Image.new("RGB", (picture.width, picture.height + 2 * MARGIN))
    canvas.paste(picture, (0, MARGIN))
    pen = ImageDraw.Draw(canvas)
    for column, caption in enumerate(captions):
        pen.text((column * picture.width // len(captions) + 4, 3), caption, fill=(255, 255, 255))
    place = 4
    for value in found[found > 0].astype(int):
        color = tuple(color_of(np.array(value)).tolist())
        pen.rectangle((place, canvas.height - 13, place + 8, canvas.height - 5), fill=color)
        pen.text((place + 12, canvas.height - 15), class_names[value], fill=(255, 255, 255))
        place += 24 + int(pen.textlength(class_names[value]))
    if not (found > 0).any():
        pen.text((place, canvas.height - 15), "nothing found", fill=(255, 255, 255))
    return canvas
