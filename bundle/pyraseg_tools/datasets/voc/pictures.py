# SPDX-License-Identifier: Apache-2.0
"""Make pictures of slices: windowed to 8 bits, or as they are in 16 bits, with the way back."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from monai.data import MetaTensor

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import VoiLut
from bundle.pyraseg.transforms import AntialiasedResize, Windowd, as_voi, parse_window

LOGGER = logging.getLogger(__name__)

WHOLE = 0.05  # steps of a stored value by which a rescaled float32 may miss it; 65535 steps are rounded by 0.008
ASPECT_TOLERANCE = 0.01  # relative difference of the two pixel spacings that nobody sees

WindowItem = str | Mapping[str, Any]


class Mapping16(NamedTuple):
    """Tell how 16-bit numbers become values again: ``value = slope * number + intercept``, in rescaled units."""

    slope: float
    intercept: float


@dataclass(frozen=True)
class Picture:
    """Hold one slice as it is written.

    Attributes:
        pixels: (rows, columns) uint8 or uint16, or RGB (rows, columns, 3) uint8.
        window: what was mapped to black and white, in words; "" for colors and for 16 bits.
        mapping: the way back to rescaled units, of 16-bit pictures.
    """

    pixels: np.ndarray
    window: str = ""
    mapping: Mapping16 | None = None


def windowed_pictures(
    image: MetaTensor, windows: Sequence[WindowItem], *, fallback: WindowItem | None = None
) -> list[Picture]:
    """Return the slices in 8 bits: the window's output times 255, rounded to the nearest number.

    Windows follow PS3.3 C.11.2.1.2 through `Windowd`, which also turns MONOCHROME1 round. Colors pass unchanged.

    Args:
        image: (1, W, H, D) in rescaled units with the metadata of `MedicalImageReader`, or (3, W, H, D) uint8.
        windows: one for gray pictures, three for the channels of RGB.
        fallback: takes the place of "header" where the header has no window that can be used.

    Raises:
        PyrasegError: the header's window is missing or unusable and there is no fallback.
    """
    if image.shape[0] == 3:
        return [Picture(pixels) for pixels in np.asarray(image).transpose(3, 2, 1, 0)]
    try:
        channels = Windowd("image", windows=windows, output_range=(0, 255)).apply(image)
    except PyrasegError as error:
        if not any(isinstance(parse_window(item), int) for item in windows):
            raise
        if fallback is None:
            raise PyrasegError(f"{error} A --fallback replaces a missing window of the header.") from error
        LOGGER.warning("%s The window %s takes its place.", error, fallback)
        windows = [fallback if isinstance(parse_window(item), int) else item for item in windows]
        channels = Windowd("image", windows=windows, output_range=(0, 255)).apply(image)
    pixels = np.rint(np.asarray(channels)).astype(np.uint8).transpose(3, 2, 1, 0)
    pixels = pixels[..., 0] if len(windows) == 1 else pixels
    return [
        Picture(slice_, "; ".join(_describe(item, image, index) for item in windows))
        for index, slice_ in enumerate(pixels)
    ]


def lossless_pictures(image: MetaTensor, slopes: Sequence[float]) -> list[Picture]:
    """Return the slices in 16 bits, from which their values can be restored exactly; colors stay in 8 bits.

    Whole values from -32768 to 32767, as those of CT, are stored as ``value + 32768``. Others are stored in steps of
    the slope of their slice, from the smallest value on. An inverted image is stored upside down, with a negative slope
    in its mapping, so that it looks right as well.

    Args:
        image: as for `windowed_pictures`.
        slopes: Rescale Slope of each slice.

    Raises:
        PyrasegError: the values do not fit into 16 bits without a loss.
    """
    if image.shape[0] == 3:
        return windowed_pictures(image, ())
    inverted = bool(image.meta.get("inverted"))
    slices = np.asarray(image)[0].transpose(2, 1, 0).astype(np.float64)
    whole = bool((slices == np.rint(slices)).all() and slices.min() >= -32768 and slices.max() <= 32767)
    pictures = []
    for values, slope in zip(slices, slopes, strict=True):
        mapping = Mapping16(1.0, -32768.0) if whole else Mapping16(abs(slope), float(values.min()))
        exact = (values - mapping.intercept) / mapping.slope
        numbers = np.rint(exact)
        if np.abs(exact - numbers).max() > WHOLE or numbers.max() > 65535:
            raise PyrasegError(
                f"The values of {image.meta.get('filename_or_obj', 'an image')} ({values.min():g} to {values.max():g}) "
                "do not fit into 16 bits without a loss. Give a window and write 8 bits."
            )
        if inverted:  # number -> 65535 - number
            numbers = 65535 - numbers
            mapping = Mapping16(-mapping.slope, mapping.intercept + 65535 * mapping.slope)
        pictures.append(Picture(numbers.astype(np.uint16), mapping=mapping))
    return pictures


def restore_values(pixels: np.ndarray, mapping: Mapping16) -> np.ndarray:
    """Return rescaled units, float32, from the numbers of a 16-bit picture."""
    return (mapping.slope * pixels.astype(np.float64) + mapping.intercept).astype(np.float32)


def is_square(spacing: tuple[float, float] | None) -> bool:
    """Return whether pixels are as high as wide, as far as anybody knows."""
    return spacing is None or abs(spacing[0] / spacing[1] - 1) <= ASPECT_TOLERANCE


def square_pixels(image: MetaTensor, spacing: tuple[float, float], *, mode: str) -> MetaTensor:
    """Return (C, W, H, D) resampled to square pixels of the smaller spacing.

    Args:
        image: values or classes.
        spacing: between rows, between columns, in any unit.
        mode: "bilinear" for images, "nearest" for labels.
    """
    rows, columns = spacing
    unit = min(spacing)
    resize = AntialiasedResize(mode=mode)
    return resize.to_size(image, round(image.shape[1] * columns / unit), round(image.shape[2] * rows / unit))


def _describe(item: WindowItem, image: MetaTensor, index: int) -> str:
    window = parse_window(item)
    if isinstance(window, int):
        view = as_voi(image.meta["voi"][index][window])
        return "header: lookup table" if isinstance(view, VoiLut) else f"header: {view.center:g}/{view.width:g}"
    if isinstance(item, str):
        return item
    return "/".join(f"{value:g}" if isinstance(value, float | int) else str(value) for value in item.values())
