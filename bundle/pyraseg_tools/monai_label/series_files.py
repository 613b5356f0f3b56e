# SPDX-License-Identifier: Apache-2.0
"""A DICOM series as a file that clients of a label server read, and what they send back laid onto its slices."""

from pathlib import Path

import numpy as np
from PIL import Image

from bundle.pyraseg.core import PHOTOGRAPH, PyrasegError, replacing, without_suffix
from bundle.pyraseg.dicom import LPS_TO_RAS, DicomImage
from bundle.pyraseg.inference import write_grid
from bundle.pyraseg.labels import read_painted
from bundle.pyraseg.transforms import Target, from_dicom, onto_grid, stored_label

#: What the folder of a series is called, beside the file that clients get of it.
SERIES = ".series"


def dicom_of(image: str) -> str:
    """Return the folder of the DICOM series that a file for clients was made of; another path stays as it is."""
    path = Path(image)
    folder = path.with_name(without_suffix(path.name) + SERIES)
    return str(folder) if folder.is_dir() else image


def write_for_clients(image: DicomImage, stem: Path) -> Path:
    """Write a series as a file that clients read: a photograph as PNG, all else as NIfTI; return its path.

    Raises:
        PyrasegError: a color volume or slices on no regular grid, which neither holds.
    """
    array, meta = from_dicom(image)
    if array.ndim == 4:
        if array.shape[2] > 1:
            raise PyrasegError(f"The series has {array.shape[2]} color images. Only single photographs are served.")
        path = stem.with_name(f"{stem.name}.png")
        with replacing(path) as temporary:
            Image.fromarray(array[:, :, 0].swapaxes(0, 1)).save(temporary, format="PNG")
        return path
    affine = meta["affine"]
    if image.geometry is not None:
        grid = image.geometry.regular_grid()
        array, affine = grid.fill(array, empty=float(array.min())), LPS_TO_RAS @ grid.affine
    whole = array.astype(np.int16)
    return write_grid(whole if np.array_equal(whole, array) else array, affine, stem, compression=1)


def on_image(path: Path, image: DicomImage) -> np.ndarray:
    """Return the values of a submitted label on the slices of its image, (N, rows, columns); see `values_on`."""
    return values_on(path, Target.of(image)).transpose(2, 1, 0)


def values_on(path: Path, target: Target) -> np.ndarray:
    """Return the values of a submitted label on the grid of its image.

    Raises:
        PyrasegError: it has another size, lies elsewhere, or holds something else than whole numbers.
    """
    if path.name.lower().endswith(PHOTOGRAPH):
        painted = read_painted(path)
        if painted.colored:
            raise PyrasegError("The label holds colors. Submit class values, as gray or as indices of a palette.")
        stored, meta = painted.values.T, {}
    else:
        stored, meta = stored_label(path)
    values = onto_grid(stored, meta, target, path)
    if not ((values == np.rint(values)) & (values >= 0) & (values <= np.iinfo(np.uint16).max)).all():
        raise PyrasegError("The label holds values that are not whole numbers from 0. Submit class values.")
    return values
