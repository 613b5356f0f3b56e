# SPDX-License-Identifier: Apache-2.0
"""Photographs as every viewer shows them: upright, one page, 8 bits a color, and no larger than memory takes."""

import os
import struct
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.core.telling import tell

#: Pixels that a photograph may have: 17,000 x 17,000. A file of a few kilobytes can claim any number of them.
MAX_PIXELS = 300_000_000
#: Environment variable with another number.
MAX_PIXELS_VARIABLE = "PYRASEG_MAX_PIXELS"
#: Pixels that are copied out of Pillow's memory at a time.
_BAND = 1 << 24
#: Held while Pillow's bound is ours; and while this process is forked, since nobody would release it in the copy.
_BOUND = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_BOUND.acquire, after_in_parent=_BOUND.release, after_in_child=_BOUND.release)


def open_photograph(path: str | Path, *, alone: bool = False, draft: tuple[int, int] | None = None) -> Image.Image:
    """Return the picture of a PNG, JPEG, TIFF, BMP or WebP file, turned as its EXIF orientation says.

    Of a file with several pictures (pages of a TIFF, an animation, a stereo pair) it is the first, with a warning that
    says so. Smaller copies of the same picture, which a pyramidal TIFF has, are not counted.

    Args:
        path: of the file.
        alone: refuse a file with several pictures, as a label, of which none may be left out.
        draft: gray and the least size are enough, which a JPEG is decoded for several times faster.

    Returns:
        The decoded image, in the mode of the file.

    Raises:
        PyrasegError: the file cannot be read, or has more pixels than `MAX_PIXELS`.
    """
    limit = max_pixels()
    try:
        # Not by its name: Pillow 13 maps an uncompressed TIFF at the size it is shown at, and garbles a turned one.
        with _bounded(limit), Path(path).open("rb") as file, Image.open(file) as image:
            if image.width * image.height > limit:
                raise _too_large(path, limit, f" ({image.width} x {image.height})")
            pictures = _pictures(image)
            if pictures > 1 and alone:
                raise PyrasegError(f"{path} holds {pictures} pictures. A label is one: save each as a file of its own.")
            if pictures > 1:
                tell(f"{path} holds {pictures} pictures, of which the first is used.")
            if draft is not None:
                image.draft("L", draft)
            image.load()
            _turn(image, path)
            return image
    except PyrasegError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, limit, "") from error
    except UnidentifiedImageError as error:
        raise _unreadable(path, "its content is of no known format") from error
    except Exception as error:  # damaged files make Pillow raise nearly every type there is
        raise _unreadable(path, str(error).strip()[:200] or type(error).__name__) from error


def is_upright(path: str | Path) -> bool:
    """Return whether a photograph is stored as it is shown, by its header alone; one that cannot be read is."""
    try:
        with _bounded(max_pixels()), Path(path).open("rb") as file, Image.open(file) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) not in range(2, 9)
    except Exception:  # what is wrong with it is told where it is read
        return True


def pixel_count(path: str | Path) -> int:
    """Return how many pixels a photograph has, by its header alone; 0 where it cannot be read or has too many."""
    try:
        with _bounded(max_pixels()), Path(path).open("rb") as file, Image.open(file) as image:
            return image.width * image.height
    except Exception:  # what is wrong with it is told where it is read
        return 0


def read_photograph(path: str | Path, *, rgb: bool = False) -> np.ndarray:
    """Return the pixels of a photograph as it is shown, (rows, columns) or RGB (rows, columns, 3).

    Args:
        path: of a file that `open_photograph` opens.
        rgb: make every photograph RGB, gray ones too; else gray keeps one channel.

    Returns:
        uint8; float32 for gray of more bits.

    Raises:
        PyrasegError: see `open_photograph`; or RGB is asked for, and the pixels have more than 8 bits.
    """
    image = open_photograph(path)
    if rgb and image.mode[0] in "IF":  # Pillow would clip them
        raise _unreadable(path, "its pixels have more than 8 bits, those of an RGB photograph 8")
    if image.mode[0] in "IF":
        return pixels_of(image).astype(np.float32)
    mode = "RGB" if rgb or image.mode not in ("1", "L", "LA") else "L"
    return pixels_of(image if image.mode == mode else image.convert(mode))


def pixels_of(image: Image.Image) -> np.ndarray:
    """Return the pixels of an image as an array of its own, (rows, columns[, channels]), without a third copy."""
    step = max(1, _BAND // image.width)
    if step >= image.height:
        return np.array(image)
    first = np.asarray(image.crop((0, 0, image.width, 1)))
    pixels = np.empty((image.height, *first.shape[1:]), first.dtype)
    for row in range(0, image.height, step):
        pixels[row : row + step] = image.crop((0, row, image.width, min(row + step, image.height)))
    return pixels


def max_pixels() -> int:
    """Return how many pixels a photograph may have.

    Raises:
        PyrasegError: the environment holds no number.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE, str(MAX_PIXELS))
    if not text.isdecimal() or not int(text):
        raise PyrasegError(f"{MAX_PIXELS_VARIABLE} is {text!r} in the environment, not a number of pixels.")
    return int(text)


@contextmanager
def _bounded(limit: int) -> Generator[None]:
    """Open photographs of as many pixels, one at a time: Pillow has one bound for all that a process does.

    Its own is about half of a 196-megapixel camera's. It holds again afterwards, for whatever else opens pictures.
    """
    with _BOUND:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limit
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _pictures(image: Image.Image) -> int:
    """Return how many pictures a file holds, reduced copies not counted."""
    count = getattr(image, "n_frames", 1)
    if not isinstance(image, TiffImageFile) or count == 1:
        return count
    full = 0
    for page in range(count):
        image.seek(page)
        full += not image.tag_v2.get(254, 0) & 1  # NewSubfileType, TIFF 6.0 section 8: bit 0 is a reduced image
    image.seek(0)
    return max(full, 1)


def _turn(image: Image.Image, path: str | Path) -> None:
    """Turn an image as its EXIF orientation says; Pillow has done that to a TIFF, and has dropped the tag."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error):
        tell(f"{path}: its EXIF data cannot be read, so the picture is taken as it is stored.")


def _too_large(path: str | Path, limit: int, size: str) -> PyrasegError:
    return PyrasegError(
        f"{path} has more than {limit:,} pixels{size}. Where the memory is there for it, set "
        f"{MAX_PIXELS_VARIABLE} to a larger number in the environment; else make the picture smaller."
    )


def _unreadable(path: str | Path, reason: str) -> PyrasegError:
    return PyrasegError(f"{path} cannot be read as an image: {reason}. Replace the file or leave it out.")


def as_rgb(pixels: np.ndarray, *, inverted: bool, name: str) -> np.ndarray:
    """Return the pixels of DICOM slices as a photograph.

    Args:
        pixels: (N, rows, columns) in rescaled units, or uint8 RGB (N, rows, columns, 3), which is returned as it is.
        inverted: whether the smallest value is meant to be shown white.
        name: of the image, for the message.

    Returns:
        (N, rows, columns, 3) uint8.

    Raises:
        PyrasegError: gray values that are no bytes: only a window could tell what they look like.
    """
    if pixels.ndim == 4:
        return pixels
    if pixels.min() < 0 or pixels.max() > 255:
        raise PyrasegError(
            f"{name} is gray with values from {pixels.min():g} to {pixels.max():g}, not a photograph of 8 bits. Use a "
            "task that windows its images."
        )
    gray = np.rint(255 - pixels if inverted else pixels).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=3)
