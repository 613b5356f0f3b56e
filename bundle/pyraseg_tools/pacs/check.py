# SPDX-License-Identifier: Apache-2.0
"""Check that a segmentation comes back from a PACS as what was stored."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import read_sources
from bundle.pyraseg.labels import ClassTable, ImageGrid, read_dicom_label, references_of
from bundle.pyraseg.runtime import Labels

#: What names the segments and their codes, and what they refer to.
KEPT = ("SOPClassUID", "StudyInstanceUID", "FrameOfReferenceUID", "SegmentSequence", "ReferencedSeriesSequence")


def require_same(returned: Path, sent: Path, mask: np.ndarray, grid: ImageGrid, class_names: Sequence[str]) -> None:
    """Refuse a segmentation that came back changed.

    It is read as a training label would be: laid on the images by its geometry, with classes told by the names
    of its segments.

    Args:
        returned: file from the PACS.
        sent: file that was written; only UIDs of its own and times may differ.
        mask: (N, rows, columns) uint8, what was found in each slice.
        grid: of the images.
        class_names: background first.

    Raises:
        PyrasegError: it cannot be read, or differs.
    """
    was, is_now = (pydicom.dcmread(path, stop_before_pixels=True) for path in (sent, returned))
    changed = [keyword for keyword in KEPT if was.get(keyword) != is_now.get(keyword)]
    if references_of(was) != references_of(is_now):
        changed.append("the images that frames refer to")
    if not np.array_equal(read_dicom_label(returned, grid, ClassTable(class_names)), mask):
        changed.append("pixels")
    if changed:
        raise PyrasegError(
            f"the segmentation is stored as {is_now.SOPInstanceUID}, but comes back with other {', '.join(changed)}. "
            "Look at what the PACS changes on arrival."
        )


def grid_of(labels: Labels) -> ImageGrid:
    """Return where the labels of a DICOM series lie."""
    files = list(dict.fromkeys(labels.files))
    headers = dict(zip(files, read_sources(files), strict=True))
    first = headers[files[0]]
    return ImageGrid(
        labels.shape,
        labels.geometry,
        series_uid=str(first.SeriesInstanceUID),
        frame_of_reference_uid=str(first.get("FrameOfReferenceUID") or ""),
        sop_instance_uids=tuple(str(headers[file].SOPInstanceUID) for file in labels.files),
        frame_numbers=tuple(labels.frame_numbers),
    )
