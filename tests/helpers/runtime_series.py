# SPDX-License-Identifier: Apache-2.0
"""Series of every orientation and encoding for the bare runtime, and how its labels are compared."""

from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, RLELossless

from tests.helpers.dicom_files import CORONAL, SAGITTAL, write_series

SHAPE = (6, 45, 52)  # slices, rows, columns
TILTED = [0.0, 0.4, 2.5]
OBLIQUE = (0.96, 0.0, -0.28, 0.0, 1.0, 0.0)
FLIPPED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
TURNED = (0.0, 1.0, 0.0, 1.0, 0.0, 0.0)  # rows run to the back
#: What else may be in a header: each is read by the bundle otherwise than the plain series.
SERIES = {
    "plain": {},
    "coronal": {"orientation": CORONAL},
    "sagittal": {"orientation": SAGITTAL},
    "flipped": {"orientation": FLIPPED},
    "turned": {"orientation": TURNED},
    "oblique": {"orientation": OBLIQUE},
    "downwards": {"slice_step": -2.5},
    "tilted": {"slice_step": TILTED},
    "with a gap": {"per_slice": lambda k: {"ImagePositionPatient": [0, 0, 2.5 * k + 40 * (k > 2)]}},
    "names in another order": {"names": ["f", "b", "e", "a", "c", "d"]},
    "rescaled by slice": {"per_slice": lambda k: {"RescaleSlope": 1 + k / 10, "RescaleIntercept": -10 * k}},
    "padded": {"PixelPaddingValue": -50, "PixelRepresentation": 1},
    "inverted": {"PhotometricInterpretation": "MONOCHROME1"},
    "JPEG 2000": {"syntax": JPEG2000Lossless},
    "RLE": {"syntax": RLELossless},
    "big endian": {"syntax": ExplicitVRBigEndian},
    "without meta header": {"meta": False},
}


def gray(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Return stored values with structure at every scale, of which some are -50."""
    random = np.random.default_rng(0)
    coarse = random.integers(-400, 500, (shape[0], 5, 6))
    values = coarse.repeat(shape[1] // 5 + 1, 1).repeat(shape[2] // 6 + 1, 2)[:, : shape[1], : shape[2]]
    values = (values + random.integers(-60, 60, shape)).astype(np.int16)
    values[:, :4, :9] = -50
    return values


def series(folder: Path, name: str = "plain", **others: object) -> Path:
    options = {"spacing": (1.3, 0.9), "slice_step": 2.5, **SERIES[name], **others}
    write_series(folder, gray(), **options)
    return folder


def png(path: Path) -> np.ndarray:
    """Return the labels of one file, or of a folder of slices."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return np.stack([np.asarray(Image.open(file)) for file in files])


def check(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert len(np.unique(expected)) >= 2
    assert (found == expected).mean() >= 0.999
