# SPDX-License-Identifier: Apache-2.0
"""Write images whose tiles are slices, with the private attributes that Siemens and United Imaging describe them by."""

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from tests.helpers.dicom_files import AXIAL, make_image, save

MOSAIC = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]


def tiled(slices: np.ndarray, down: int, across: int) -> np.ndarray:
    """Return slices (N, rows, columns[, 3]) side by side in one image; what is left of it is 0."""
    count, rows, columns = slices.shape[:3]
    image = np.zeros((down * rows, across * columns, *slices.shape[3:]), slices.dtype)
    for k in range(count):
        row, column = divmod(k, across)
        image[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns] = slices[k]
    return image


def csa_header(tags: Mapping[str, Sequence[object]], *, version: int = 2) -> bytes:
    """Return a CSA header of either form with these tags."""
    data = b"SV10\4\3\2\1" if version == 2 else b""
    data += struct.pack("<ii", len(tags), 77)
    surplus = len(next(iter(tags.values())))
    for name, values in tags.items():
        data += struct.pack("<64si4siii", name.encode(), len(values), b"FD", 4, len(values), 77)
        for value in values:
            text = f"{value}".encode() + b"\0"
            first = len(text) if version == 2 else len(text) + surplus
            data += struct.pack("<iiii", first, len(text), 77, len(text)) + text + bytes(-len(text) % 4)
    return data


def make_mosaic(
    slices: np.ndarray,
    *,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float] = (2.0, 2.0),
    step: float = 3.0,
    version: int = 2,
    csa: Mapping[str, Sequence[object]] | None = None,
    **attributes: object,
) -> Dataset:
    """Return a mosaic of slices (N, rows, columns).

    Args:
        slices: stored values.
        origin: center of the first pixel of the first slice, LPS mm.
        orientation: row cosine, then column cosine.
        spacing: between rows, between columns, mm.
        step: mm from slice to slice along the cross product of the cosines; negative against it.
        version: of the CSA header.
        csa: its tags, which override those that are right.
        attributes: of the image.
    """
    side = math.ceil(math.sqrt(len(slices)))
    axes = np.reshape(orientation, (2, 3))
    normal = np.cross(*axes) * np.sign(step)
    image = tiled(slices, side, side)
    surplus = (np.array(image.shape[1::-1]) - slices.shape[2:0:-1]) / 2 * spacing[::-1]
    tags = {"NumberOfImagesInMosaic": [len(slices)], "SliceNormalVector": normal, "EchoLinePosition": [], **(csa or {})}
    own = {
        "SOPClassUID": MRImageStorage,
        "Modality": "MR",
        "Manufacturer": "SIEMENS",
        "ImageType": MOSAIC,
        "ImagePositionPatient": (np.asarray(origin) - surplus @ axes).tolist(),
        "ImageOrientationPatient": list(orientation),
        "PixelSpacing": list(spacing),
        "SpacingBetweenSlices": abs(step),
        "SliceThickness": 2.5,
        "InstanceNumber": 1,
        **attributes,
    }
    dataset = make_image(image, **own)
    block = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", csa_header(tags, version=version))
    return dataset


def make_uih_grid(slices: np.ndarray, positions: np.ndarray, **attributes: object) -> Dataset:
    """Return a grid of slices (N, rows, columns) at positions (N, 3) LPS mm."""
    across = math.ceil(math.sqrt(len(slices)))
    own = {
        "SOPClassUID": MRImageStorage,
        "Modality": "MR",
        "Manufacturer": "UIH",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "VFRAME"],
        "ImagePositionPatient": [9, 9, 9],
        "ImageOrientationPatient": list(AXIAL),
        "PixelSpacing": [2, 2],
        "SliceThickness": 2.5,
        "InstanceNumber": 1,
        **attributes,
    }
    dataset = make_image(tiled(slices, math.ceil(len(slices) / across), across), **own)
    block = dataset.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x50, "DS", str(len(slices)))
    items = []
    for position in np.asarray(positions, float).tolist():
        item = Dataset()
        item.ImagePositionPatient = position
        items.append(item)
    block.add_new(0x51, "SQ", items)
    return dataset


def write_mosaic(path: Path, slices: np.ndarray, **options: object) -> Path:
    """Write what `make_mosaic` returns."""
    return save(make_mosaic(slices, **options), path)
