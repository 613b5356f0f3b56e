# SPDX-License-Identifier: Apache-2.0
"""A DICOM series as a file that clients of a label server read, and what they send back laid onto its slices."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from bundle.pyraseg.core import (
    ITK,
    PHOTOGRAPH,
    PyrasegError,
    is_upright,
    open_photograph,
    read_itk_header,
    replacing,
    without_suffix,
)
from bundle.pyraseg.dicom import LPS_TO_RAS, DicomImage, unit_normal
from bundle.pyraseg.inference import write_grid
from bundle.pyraseg.labels import read_painted, slicer_segments
from bundle.pyraseg.transforms import PLACE, Target, from_dicom, onto_grid, stored_label

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
    values = whole if np.array_equal(whole, array) else array
    return write_grid(values, affine, stem, place=place_for_viewers(affine), compression=1)


def place_for_viewers(affine: np.ndarray) -> dict[str, np.ndarray] | None:
    """Return how a header says where a tilted stack lies so that viewers open it; None for one at right angles.

    ITK, and so 3D Slicer, refuses axes that are not at right angles. It takes the qform where that has them, and shows
    the slices as they are, straight above each other; the sform says where they lie.

    Args:
        affine: of the voxels to RAS mm.
    """
    upright = _upright(affine)
    if np.allclose(upright, affine, rtol=0, atol=1e-5):
        return None
    header = nib.Nifti1Header()
    header.set_qform(upright, code="scanner")
    header.set_sform(affine, code="scanner")
    header.set_xyzt_units("mm")
    return {name: np.array(header[name]) for name in PLACE}


def _upright(affine: np.ndarray) -> np.ndarray:
    """Return an affine whose slices are as large and as far apart, but straight above each other."""
    normal = unit_normal(affine[:3, 0], affine[:3, 1])
    upright = affine.copy()
    upright[:3, 2] = normal * (normal @ affine[:3, 2])
    return upright


def upright_copy(image: Path, folder: Path) -> Path:
    """Return a PNG in a folder that shows a photograph upright, or the photograph where it is stored so."""
    if not image.name.lower().endswith(PHOTOGRAPH) or is_upright(image):
        return image
    path = folder / f"{image.stem}_{image.stat().st_mtime_ns}.png"
    if not path.is_file():
        picture = open_photograph(image)
        with replacing(path) as temporary:
            picture = (
                picture if picture.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else picture.convert("RGB")
            )
            picture.save(temporary, format="PNG")
    return path


def on_image(path: Path, image: DicomImage) -> np.ndarray:
    """Return the values of a submitted label on the slices of its image, (N, rows, columns); see `values_on`.

    A client may have drawn it where the slices lie, or where `place_for_viewers` shows them.
    """
    target = Target.of(image)
    return values_on(path, replace(target, other_affine=_upright(target.affine))).transpose(2, 1, 0)


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


def names_in(path: Path) -> list[dict[str, Any]]:
    """Return what the header of a segmentation of 3D Slicer calls its values, as a client's `label_info`; else nothing.

    It has one layer, as all that lies on an image: see `values_on`.

    Raises:
        PyrasegError: it says no values.
    """
    if not path.name.lower().endswith(ITK):
        return []
    segments = slicer_segments(read_itk_header(path)[0], 1, "The label")
    return [{"name": segment.region.name, "idx": segment.value} for segment in segments.values()]
