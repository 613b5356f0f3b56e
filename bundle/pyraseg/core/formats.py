# SPDX-License-Identifier: Apache-2.0
"""Formats of images: what their files are called (DICOM is told by content), and the pixels of photographs."""

import numpy as np
from PIL import Image

from bundle.pyraseg.core.errors import PyrasegError

NIFTI = (".nii", ".nii.gz")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
PHOTOGRAPH = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

DICOM = (".dcm", ".dicom", ".ima")


def without_suffix(name: str) -> str:
    """Drop the suffix of an image format from a name or path; other dots are part of a name, as in a UID.

    >>> without_suffix("scans/1.2.840.NII.gz"), without_suffix("1.2.840")
    ('scans/1.2.840', '1.2.840')
    """
    file = name.rpartition("/")[2].lower()
    suffixes = [one for one in (*NIFTI, *ITK, *PHOTOGRAPH, *DICOM) if file.endswith(one) and file != one]
    return name[: -len(max(suffixes, key=len))] if suffixes else name


def convert(image: Image.Image, *, rgb: bool = False, palette_index: bool = False) -> Image.Image:
    """Drop the alpha channel, expand a palette, and keep 16-bit and floating-point gray values.

    Args:
        image: as Pillow opened it.
        rgb: make every image RGB.
        palette_index: keep the index of a palette color, in which label maps store their classes, not its RGB.

    Raises:
        ValueError: RGB is asked for, and the pixels have more than 8 bits.
    """
    if rgb and image.mode[0] in "IF":  # Pillow would clip them
        raise ValueError("its pixels have more than 8 bits, those of an RGB photograph 8")
    if rgb:
        return image.convert("RGB")
    if image.mode in ("L", "RGB", "F") or image.mode.startswith("I") or (image.mode == "P" and palette_index):
        return image
    return image.convert("L" if image.mode in ("1", "LA") else "RGB")


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
