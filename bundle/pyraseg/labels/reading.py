# SPDX-License-Identifier: Apache-2.0
"""Read a DICOM label, segmentation or structure set, onto the slices of an image."""

import os
from pathlib import Path

import numpy as np
import pydicom

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import parse
from bundle.pyraseg.labels.class_table import ClassTable
from bundle.pyraseg.labels.references import DRAWN_ON, ImageGrid
from bundle.pyraseg.labels.rtstruct_reader import StructureSet, read_structure_set, structure_set_to_labels
from bundle.pyraseg.labels.seg_reader import Segmentation, segmentation_to_labels


def open_label(path: str | os.PathLike, *, fraction: float = 0.5) -> Segmentation | StructureSet:
    """Open a DICOM SEG or RTSTRUCT.

    Args:
        path: its file, of any name.
        fraction: a pixel of a FRACTIONAL segmentation belongs to a segment from this share of the maximum on.

    Raises:
        PyrasegError: the file is neither, or damaged.
    """
    path = Path(path)
    try:
        dataset = pydicom.dcmread(path, force=True)
        parse(dataset)
        if dataset.get("Modality") == "RTSTRUCT" or "StructureSetROISequence" in dataset:
            return read_structure_set(dataset, path)
        if "SegmentSequence" in dataset or "SegmentationType" in dataset:
            return Segmentation(dataset, path, fraction=fraction)
    except PyrasegError:
        raise
    except Exception as error:  # Damaged files make pydicom raise nearly every type there is.
        raise PyrasegError(
            f"{path} cannot be read as a DICOM label, {type(error).__name__}: {str(error)[:200]}. Export it again."
        ) from error
    modality = dataset.get("Modality") or "unknown"
    found = f"no segmentation (modality {modality})" if dataset.file_meta or "Modality" in dataset else "no DICOM file"
    raise PyrasegError(f"{path} is {found}. A label is a DICOM SEG or RTSTRUCT, NIfTI, NRRD, MetaImage or PNG.")


def read_dicom_label(
    path: str | os.PathLike, grid: ImageGrid, table: ClassTable, *, fraction: float = 0.5, drawn_on: str = "series"
) -> np.ndarray:
    """Return the class indices (N, rows, columns) uint8 of a DICOM SEG or RTSTRUCT on the slices of an image.

    Args:
        path: its file, of any name.
        grid: of the image, such as `ImageGrid.of(read_series(folder))`.
        table: which class each segment or ROI is, and which may overlap.
        fraction: a pixel of a FRACTIONAL segmentation belongs to a segment from this share of the maximum on.
        drawn_on: what the label must share with the image: its "series", or its "frame_of_reference"; see
            `require_reference`.

    Raises:
        PyrasegError: the label cannot be read, or does not fit the image or the table.
    """
    if drawn_on not in DRAWN_ON:
        raise PyrasegError(f"drawn_on is {drawn_on!r}; it can be {' or '.join(map(repr, DRAWN_ON))}.")
    label = open_label(path, fraction=fraction)
    if isinstance(label, StructureSet):
        return structure_set_to_labels(label, grid, table, drawn_on=drawn_on)
    return segmentation_to_labels(label, grid, table, drawn_on=drawn_on)
