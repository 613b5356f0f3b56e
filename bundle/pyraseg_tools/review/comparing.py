# SPDX-License-Identifier: Apache-2.0
"""How far a correction is from the result that it takes the place of: the Dice of each structure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
import torch

from bundle.pyraseg.evaluation import count_overlap, ratios
from bundle.pyraseg.labels import ClassTable, ImageGrid, open_label, read_dicom_label


def compare_labels(result: np.ndarray, correction: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """Return the Dice of each class but the background; NaN where both lack it.

    Args:
        result: class indices, uint8.
        correction: class indices of the same shape.
        class_names: background first.

    >>> compare_labels(np.uint8([1, 1, 0]), np.uint8([1, 0, 0]), ["background", "liver", "spleen"])
    {'liver': 0.6666666666666666, 'spleen': nan}
    """
    pair = torch.from_numpy(np.ascontiguousarray(result)), torch.from_numpy(np.ascontiguousarray(correction))
    dice = ratios(count_overlap(*pair, classes=len(class_names)))[:, 0]
    return dict(zip(class_names[1:], dice.tolist(), strict=True))


def compare_segmentations(result: Path, correction: Path, grid: ImageGrid) -> dict[str, float]:
    """Return the Dice of each structure of two DICOM SEG on the slices of their image; NaN where both are empty.

    Structures are told by their names, without regard to case. One that a file lacks is empty there.

    Args:
        result: file of the SEG that a model made.
        correction: file of the SEG that takes its place.
        grid: of the image.

    Raises:
        PyrasegError: one of them cannot be read, or was drawn on another image.
    """
    names: dict[str, str] = {}
    for path in (result, correction):
        for region in open_label(path).regions.values():
            names.setdefault(region.name.strip().casefold(), region.name.strip())
    structures = list(names.values())
    if _excludes_overlap(result) and _excludes_overlap(correction):
        table = ClassTable(["background", *structures])
        return _compared(result, correction, grid, table)
    found: dict[str, float] = {}
    for name in structures:
        found |= _compared(result, correction, grid, ClassTable(["background", name], {"background": ["*"]}))
    return found


def _compared(result: Path, correction: Path, grid: ImageGrid, table: ClassTable) -> dict[str, float]:
    return compare_labels(
        read_dicom_label(result, grid, table), read_dicom_label(correction, grid, table), table.class_names
    )


def _excludes_overlap(path: Path) -> bool:
    """Return whether a SEG says that no voxel is in two of its segments (PS3.3 C.8.20.2), so that one map holds all."""
    header = pydicom.dcmread(path, stop_before_pixels=True)
    return header.get("SegmentationType") == "LABELMAP" or header.get("SegmentsOverlap") == "NO"


def are_equal(dice: Mapping[str, float]) -> bool:
    """Return whether a correction changed nothing: the Dice of every structure that either has is 1."""
    return all(value == 1 or np.isnan(value) for value in dice.values())
