# SPDX-License-Identifier: Apache-2.0
"""A DICOM series as a file that clients of a label server read, and what they send back laid onto its slices."""

from pathlib import Path

import numpy as np
from PIL import Image

from bundle.pyraseg.dicom.series import DicomImage
from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.files import replacing
from bundle.pyraseg.inference.writers.label_map import write_grid
from bundle.pyraseg.transforms.label import Target, onto_grid
from bundle.pyraseg.transforms.reader import MedicalImageReader, from_dicom

#: What the folder of a series is called, beside the file that clients get of it.
SERIES = ".series"


def dicom_of(image: str) -> str:
    """Return the folder of the DICOM series that a file for clients was made of; another path stays as it is."""
    path = Path(image)
    folder = path.with_name(path.name.removesuffix(".nii.gz").removesuffix(".png") + SERIES)
    return str(folder) if folder.is_dir() else image


def write_for_clients(image: DicomImage, stem: Path) -> Path:
    """Write a series as a file that clients read: a photograph as PNG, all else as NIfTI; return its path.

    Raises:
        PyrasegError: a colour volume, which neither holds.
    """
    array, meta = from_dicom(image)
    if array.ndim == 4:
        if array.shape[2] > 1:
            raise PyrasegError(f"The series has {array.shape[2]} colour images. Only single photographs are served.")
        path = stem.with_name(f"{stem.name}.png")
        with replacing(path) as temporary:
            Image.fromarray(array[:, :, 0].swapaxes(0, 1)).save(temporary, format="PNG")
        return path
    whole = array.astype(np.int16)
    return write_grid(whole if np.array_equal(whole, array) else array, meta["affine"], stem, compression=1)


def on_image(path: Path, image: DicomImage) -> np.ndarray:
    """Return the values of a submitted label on the slices of its image, (N, rows, columns).

    Raises:
        PyrasegError: it has another size or lies elsewhere.
    """
    shape = image.pixels.shape[:3]
    values, meta = MedicalImageReader(palette_index=True).get_data([path])
    return onto_grid(np.asarray(values), meta, Target.of(image), path).reshape(shape[::-1]).transpose(2, 1, 0)
