# SPDX-License-Identifier: Apache-2.0
"""Decode DICOM pixel data, and tell padding and polarity.

The order is the standard's: decode, find padding, modality transformation. VOI and inversion belong to display: they
are read here and in :mod:`~bundle.pyraseg.dicom.luts`, and never applied on the way in.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from bundle.pyraseg.core import PyrasegError, tell
from bundle.pyraseg.dicom.headers import (
    file_of,
    frame_count,
    is_little_endian,
    read_numbers,
    transfer_syntax,
)
from bundle.pyraseg.dicom.jpeg12 import register
from bundle.pyraseg.dicom.luts import look_up, read_descriptor, read_entries

LOGGER = logging.getLogger(__name__)
register()

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
PIXEL_GROUPS = (0x0028, 0x2050, 0x5200, 0x7FE0)  # all that decoding, rescaling and VOI use
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
# Where several plugins know an encoding: GDCM, pydicom's first choice, believes a header that gives an image of JPEG-LS
# another size than its stream has, and ends the whole process or returns pixels of other places.
PLUGINS = {
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000: "pylibjpeg",
    JPEG2000Lossless: "pylibjpeg",
}
UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def decode_frames(dataset: Dataset) -> np.ndarray:
    """Decode all frames to stored values ``(frames, rows, columns)`` or to RGB ``(frames, rows, columns, 3)``.

    Gray values keep their stored type (float for Float and Double Float Pixel Data). Color is unsigned: palettes are
    expanded, and YBR is converted to RGB once (PS3.3 C.7.6.3.1.2).

    Raises:
        PyrasegError: there is no pixel data, or it cannot be decoded.
    """
    where, syntax = file_of(dataset), transfer_syntax(dataset) or UID("")
    if not any(dataset.get(keyword) for keyword in PIXEL_KEYWORDS):
        raise PyrasegError(f"{where}: no pixel data; it is not an image or it was cut short. Export the file again.")
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric not in (*MONOCHROME, *COLOR, "PALETTE COLOR"):
        raise PyrasegError(f"{where}: photometric interpretation {photometric!r} is not supported. Convert it to RGB.")
    try:
        # pydicom converts YBR of 8 bits only.
        deep_ybr = photometric.startswith("YBR_FULL") and int(dataset.get("BitsAllocated") or 8) > 8
        options: dict[str, Any] = {
            "raw": deep_ybr,
            "allow_excess_frames": False,
            "decoding_plugin": PLUGINS.get(syntax, ""),
        }
        shift = _bits_below(dataset, syntax)
        if shift:
            options["bits_stored"] = int(dataset.BitsAllocated)
        decoded, _ = get_decoder(syntax).as_array(dataset, **options)
        shape = (frame_count(dataset), dataset.Rows, dataset.Columns)
        decoded = decoded.reshape(*shape, *([3] if photometric in COLOR else []))
    except Exception as error:  # The decoders and their plugins raise nearly every type there is.
        if lacking := _missing_bytes(dataset, syntax):
            raise PyrasegError(
                f"{where}: the pixel data is {lacking} bytes shorter than {dataset.Rows} x {dataset.Columns} pixels of "
                f"{frame_count(dataset)} frame(s) need ({syntax.name}): the file was cut short, or its header "
                "is wrong. Fetch it again from where it comes from."
            ) from error
        name = syntax.name if syntax else "unknown"
        cause = (
            "The file is damaged, or no installed decoder knows this encoding. Export it again, or convert it to an "
        )
        cause += "uncompressed transfer syntax."
        if syntax in UNCOMPRESSED:
            cause = (
                "It is not compressed, but its header does not describe it, or the file is damaged. Export it again."
            )
        raise PyrasegError(f"{where}: the pixel data cannot be decoded (transfer syntax {name}). {cause}") from error
    decoded = decoded.astype(decoded.dtype.newbyteorder("="), copy=False)
    if shift:
        decoded = _from_upper_bits(decoded, shift, dataset)
    if photometric == "PALETTE COLOR":
        return _expand_palette(decoded, dataset, where)
    return _ybr_to_rgb(decoded, int(dataset.BitsStored)) if deep_ybr else decoded


def _missing_bytes(dataset: Dataset, syntax: UID) -> int:
    """Return how many bytes of the pixels that are not compressed are missing, 0 where that is not what is wrong."""
    if syntax not in UNCOMPRESSED:
        return 0
    length = max(len(dataset.get(keyword) or b"") for keyword in PIXEL_KEYWORDS)
    try:
        return max(get_expected_length(dataset) - length, 0)
    except Exception:  # the attributes that tell are missing or wrong themselves, of which the caller tells
        return 0


def _bits_below(dataset: Dataset, syntax: UID) -> int:
    """Return how many bits lie below the stored ones, as older scanners have it; 0 in all that was written since.

    pydicom, as GDCM, believes BitsStored and not HighBit. JPEG and its kin have their own account of their bits.
    """
    if (syntax.is_compressed and syntax != RLELossless) or not dataset.get("HighBit") or not dataset.get("BitsStored"):
        return 0
    return max(min(int(dataset.HighBit) + 1, int(dataset.BitsAllocated)) - int(dataset.BitsStored), 0)


def _from_upper_bits(words: np.ndarray, shift: int, dataset: Dataset) -> np.ndarray:
    """Return the values of whole words whose stored bits do not begin with the lowest (PS3.5 8.1.1 until 2011).

    Where only the lowest bits are used, some of them below the stored ones, HighBit is wrong, and they count.
    """
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    lowest = (words << (allocated - stored)) >> (allocated - stored)  # which keeps the sign
    if np.any(words & ((1 << shift) - 1)) and np.array_equal(lowest, words):
        tell(f"{file_of(dataset)}: HighBit is {dataset.HighBit}, but the values stand in the lowest {stored} bits.")
        return words
    above = allocated - stored - shift
    return (words << above) >> (above + shift)


def to_uint8(color: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Keep the eight most significant bits of each sample of an RGB array from :func:`decode_frames`."""
    if color.dtype == np.uint8:
        return color
    from_palette = dataset.get("PhotometricInterpretation") == "PALETTE COLOR"
    bits = color.dtype.itemsize * 8 if from_palette else int(dataset.BitsStored)
    return (color >> max(bits - 8, 0)).astype(np.uint8)


def padding_mask(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Return where stored values are padding, a boolean array of the shape of ``stored`` (PS3.3 C.7.5.1.1.2).

    Padding is Pixel Padding Value, or the closed interval from it to Pixel Padding Range Limit, in either order.
    Float pixels have their own pair of attributes. Color has none.
    """
    if dataset.get("PhotometricInterpretation") not in MONOCHROME:
        return np.zeros(stored.shape, dtype=bool)
    prefix = {"f4": "FloatPixel", "f8": "DoubleFloatPixel"}.get(stored.dtype.str[1:], "Pixel")
    where = file_of(dataset)
    value = read_numbers(dataset, f"{prefix}PaddingValue", 1, where)
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    limit = read_numbers(dataset, f"{prefix}PaddingRangeLimit", 1, where) or value
    low, high = value[0], limit[0]
    if prefix == "Pixel":
        low, high = (_as_stored(int(v), dataset) for v in (low, high))
    low, high = min(low, high), max(low, high)
    return (stored >= low) & (stored <= high)


def is_inverted(dataset: Dataset, *, tell: Callable[[str], None] = LOGGER.warning) -> bool:
    """Return whether the smallest value is meant to be shown white.

    Presentation LUT Shape INVERSE and MONOCHROME1 state the same, single inversion (PS3.3 C.8.11.3.1.2). Where they
    conflict, Presentation LUT Shape decides, as the more explicit of the two, and that is told.
    """
    monochrome1 = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    shape = dataset.get("PresentationLUTShape")
    if shape not in ("IDENTITY", "INVERSE") or dataset.get("PhotometricInterpretation") not in MONOCHROME:
        return monochrome1
    if (shape == "INVERSE") != monochrome1:
        tell(
            f"{file_of(dataset)}: PresentationLUTShape {shape} contradicts {dataset.PhotometricInterpretation}; the "
            "former decides, check the polarity of this image"
        )
    return shape == "INVERSE"


def _as_stored(value: int, dataset: Dataset) -> int:
    """Read a 16-bit attribute with the signedness of the pixels: writers mix up its VRs US and SS."""
    value &= 0xFFFF
    return value - 0x10000 if dataset.get("PixelRepresentation") == 1 and value > 0x7FFF else value


def _ybr_to_rgb(ybr: np.ndarray, bits: int) -> np.ndarray:
    """Invert the YBR_FULL equations of PS3.3 C.7.6.3.1.2 for samples of any depth."""
    y, cb, cr = (ybr[..., channel].astype(np.float64) for channel in range(3))
    cb -= 2 ** (bits - 1)
    cr -= 2 ** (bits - 1)
    green = y - (0.114 * 1.772 * cb + 0.299 * 1.402 * cr) / 0.587
    rgb = np.stack([y + 1.402 * cr, green, y + 1.772 * cb], axis=-1)
    return np.clip(np.floor(rgb + 0.5), 0, 2**bits - 1).astype(ybr.dtype)


def _expand_palette(index: np.ndarray, dataset: Dataset, where: str) -> np.ndarray:
    """Look palette indices up, to uint8 or uint16 (PS3.3 C.7.6.3.1.5 and C.7.6.3.1.6).

    16-bit tables whose entries stay below 256 hold 8-bit colors: some writers declare the width of the word.
    """
    signed = dataset.get("PixelRepresentation") == 1
    descriptor = dataset.get("RedPaletteColorLookupTableDescriptor")
    count, first, bits = read_descriptor(descriptor, signed=signed, where=where)
    channels = ("Red", "Green", "Blue")
    if all(dataset.get(f"{channel}PaletteColorLookupTableData") for channel in channels):
        little = is_little_endian(dataset)
        data = [dataset[f"{channel}PaletteColorLookupTableData"].value for channel in channels]
        tables = np.stack([read_entries(d, count, bits, little_endian=little, where=where) for d in data], axis=-1)
    else:  # Segmented tables: pydicom expands them.
        try:
            tables = apply_color_lut(np.arange(first, first + count), dataset)[:, :3]
        except Exception as error:
            raise PyrasegError(f"{where}: the color palette is missing or damaged. Convert it to RGB.") from error
    return look_up(index, first, tables.astype(np.uint8 if bits <= 8 or tables.max() < 256 else np.uint16))
