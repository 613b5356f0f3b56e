# SPDX-License-Identifier: Apache-2.0
"""Write labels as they come: PNG, NIfTI, DICOM SEG."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bundle.pyraseg.core import PyrasegError, remove_results, replacing
from bundle.pyraseg.runtime.images import Labels
from bundle.pyraseg.runtime.model import Model

#: Write the labels of an input at a path without a suffix; return the path.
Writer = Callable[[Labels, Path], Path]


def write_png(labels: Labels, stem: Path) -> Path:
    """Write class values as PNG: one file, or for several slices a folder with one file each, in the order of places.

    The folder of a run before is replaced.
    """
    from PIL import Image

    if labels.shape[0] == 1:
        path = stem.with_name(f"{stem.name}.png")
        with replacing(path) as temporary:
            Image.fromarray(next(labels.slices)).save(temporary, format="PNG")
        return path
    digits = len(str(labels.shape[0]))
    path = stem.with_name(f"{stem.name}_labels")
    with replacing(path) as temporary:
        temporary.mkdir()
        for number, values in enumerate(labels.slices, 1):
            Image.fromarray(values).save(temporary / f"slice_{number:0{digits}}.png", format="PNG")
        remove_results(path, r"slice_\d+\.png")
    return path


def nifti_writer() -> Writer:
    """Return what writes NIfTI, on the grid of the series or, for uneven slices, a regular one that holds it.

    Images without a place in a patient are refused, and so are slices that no regular grid holds.

    Raises:
        PyrasegError: nibabel is missing.
    """
    try:
        import nibabel as nib
    except ImportError as error:
        raise PyrasegError("NIfTI needs nibabel: pip install nibabel, or write --format png.") from error
    from bundle.pyraseg.dicom import LPS_TO_RAS

    def write(labels: Labels, stem: Path) -> Path:
        if labels.geometry is None:
            raise PyrasegError("It has no patient position, so NIfTI is not possible. Give --format png.")
        path = stem.with_name(f"{stem.name}.nii.gz")
        grid = labels.geometry.regular_grid()
        empty = np.zeros(labels.shape[1:], np.uint8)
        like = np.broadcast_to(np.uint8(0), (*empty.shape[::-1], len(grid.sources)))
        header = nib.Nifti1Image(like, LPS_TO_RAS @ grid.affine).header
        header.set_xyzt_units("mm")
        header["vox_offset"] = 352  # the header's 348 bytes, and four that say that no extension follows
        with (
            replacing(path) as temporary,
            temporary.open("wb") as file,
            gzip.GzipFile("", "wb", compresslevel=3, fileobj=file, mtime=0) as packed,
        ):
            packed.write(header.binaryblock + bytes(4))
            there, values = -1, empty
            for source in grid.sources:
                while there < source:
                    there, values = there + 1, next(labels.slices)
                packed.write((values if source >= 0 else empty).tobytes())  # columns run fastest in both
        return path

    return write


def seg_writer(model: Model) -> Writer:
    """Return what writes a BINARY DICOM SEG with the model's codes; it holds the labels of all slices in memory.

    Raises:
        PyrasegError: highdicom is missing, or the model has no code for a class.
    """
    try:
        from bundle.pyraseg.dicom import read_sources
        from bundle.pyraseg.labels import segment_classes, write_segmentation
    except ImportError as error:
        raise PyrasegError("DICOM SEG needs highdicom: pip install highdicom, or write --format png.") from error
    classes = segment_classes(model.class_names, model.terminology)

    def write(labels: Labels, stem: Path) -> Path:
        if not labels.files:
            raise PyrasegError("It is not DICOM, so DICOM SEG is not possible. Give --format png.")
        path = stem.with_name(f"{stem.name}_seg.dcm")
        slices = np.stack(list(labels.slices))  # first: the headers come with the pixels
        sources = read_sources(labels.files)
        write_segmentation(
            path, slices, sources, classes, frame_numbers=labels.frame_numbers, algorithm=model.algorithm
        )
        return path

    return write
