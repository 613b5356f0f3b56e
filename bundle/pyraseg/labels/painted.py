# SPDX-License-Identifier: Apache-2.0
"""Labels that are pictures: what number each pixel stands for, be it a gray value, an index, a color or opacity."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bundle.pyraseg.core import PyrasegError, open_photograph, pixels_of

#: Levels by which the channels of a gray picture may differ where a lossy format has stored it as RGB.
LOSSY_GRAY = 16
LOSSY = ("JPEG", "MPO", "WEBP")
#: More colors than this are no classes but a blurred picture.
MOST_COLORS = 64


@dataclass(frozen=True, eq=False)
class Painted:
    """Hold a label as it was painted, (rows, columns), turned as its EXIF orientation says.

    Attributes:
        values: gray values or palette indices; with `colored` 0xRRGGBB, black (0) being what nobody has painted.
        colored: whether the values are colors.
        contradicts_index: whether its palette shows the index 0 in a color and another one that is there black, so that
            index and color disagree about which is the background.
    """

    values: np.ndarray
    colored: bool = False
    contradicts_index: bool = False


def read_painted(path: str | Path, *, mask_value: int | None = None) -> Painted:
    """Return a label from a picture.

    Equal channels are gray. What is transparent was not painted; a single opaque color beside it, black too, was. An
    index of a palette is a value, unless a mask value is given that it is not: then its color counts.

    Args:
        path: of the picture.
        mask_value: value that stands for the class in a mask, where it is known.

    Raises:
        PyrasegError: the file cannot be read, holds several pictures, or is half transparent.
    """
    image = open_photograph(path, alone=True)
    if image.mode == "P":
        indices = pixels_of(image)
        used = np.unique(indices)
        if mask_value is None or np.isin(used, (0, mask_value)).all():
            return Painted(indices, contradicts_index=_contradicts(image, used))
        image = image.convert("RGB")  # its transparency says no more than its index
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "L" or image.mode[0] in "IF":
        values = pixels_of(image)
        if not np.isfinite(values).all():
            raise PyrasegError(f"The label {path} holds NaN or infinity, which is no class. Correct what wrote it.")
        return Painted(values)
    lossy = image.format in LOSSY
    opaque = None
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        opaque = _opaque(pixels_of(image.getchannel("A")), path)
    return _from_rgb(pixels_of(image.convert("RGB")), opaque, LOSSY_GRAY if lossy else 0)


def color_name(color: int) -> str:
    """Return the name of 0xRRGGBB, as label_names has it.

    >>> color_name(0xFF8000)
    '#ff8000'
    """
    return f"#{color:06x}"


def colors_in(values: np.ndarray, path: str | Path) -> list[int]:
    """Return the colors of a painted label that are not black.

    Raises:
        PyrasegError: there are too many for classes.
    """
    colors = np.unique(values[values > 0]).tolist()
    if len(colors) > MOST_COLORS:
        raise PyrasegError(
            f"The label {path} has {len(colors)} colors, which are no classes: a lossy format or a resampling has "
            "blurred it. Save it with class values, without loss."
        )
    return colors


def _contradicts(image: Image.Image, used: np.ndarray) -> bool:
    palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    black = {index for index in used.tolist() if index < len(palette) and not palette[index].any()}
    return 0 in used and 0 not in black and bool(black)


def _opaque(alpha: np.ndarray, path: str | Path) -> np.ndarray | None:
    """Return where a picture is opaque; None where it is everywhere."""
    levels = np.unique(alpha)
    if np.array_equal(levels, [255]):
        return None
    if not np.array_equal(levels, [0, 255]):
        what = "half transparent" if levels.any() else "transparent everywhere"
        raise PyrasegError(
            f"The label {path} is {what}, which does not say which of its pixels were painted. Save it without "
            "transparency, as gray values that are those of the classes."
        )
    return alpha == 255


def _from_rgb(pixels: np.ndarray, opaque: np.ndarray | None, tolerance: int) -> Painted:
    """Return gray or colored values from (rows, columns, 3) uint8."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    colors = red << 16 | green << 8 | blue
    if opaque is not None:
        shown = np.unique(colors[opaque])
        if np.array_equal(shown, [0]):
            return Painted(np.where(opaque, np.uint8(255), np.uint8(0)))
        colors = np.where(opaque, colors, 0)
        red, green, blue = (np.where(opaque, channel, 0) for channel in (red, green, blue))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    if spread.max() <= tolerance:
        return Painted(green.astype(np.uint8))
    return Painted(colors, colored=True)
