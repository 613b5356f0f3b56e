# SPDX-License-Identifier: Apache-2.0
"""Tell a result that a PACS has changed from one that it has kept."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError

#: What says in an object which it is, what was found and where. A PACS may correct the patient's name, and does not
#: touch these.
KEPT = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID",
    "ReferencedSeriesSequence", "SegmentSequence", "SegmentationType", "MaximumFractionalValue",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "StructureSetROISequence",
    "ROIContourSequence", "ContentSequence", "NumberOfFrames", "Rows", "Columns", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient",
)  # fmt: skip


def require_same(returned: Path, sent: Path) -> None:
    """Refuse an object that came back changed.

    Args:
        returned: file from the PACS; it may be compressed otherwise.
        sent: file that was written.

    Raises:
        PyrasegError: it says other things, or has other pixels.
    """
    was, is_now = pydicom.dcmread(sent), pydicom.dcmread(returned)
    changed = [keyword for keyword in KEPT if was.get(keyword) != is_now.get(keyword)]
    if not _same_pixels(was, is_now):
        changed.append("pixels")
    if changed:
        raise PyrasegError(
            f"the result is stored as {is_now.get('SOPInstanceUID')}, but comes back with other {', '.join(changed)}. "
            "Look at what the PACS changes on arrival."
        )


def _same_pixels(one: Dataset, other: Dataset) -> bool:
    """Return whether two objects have the same pixels, however they are compressed, or none."""
    if one.get("PixelData") == other.get("PixelData"):
        return True
    if "PixelData" not in one or "PixelData" not in other:
        return False
    if one.file_meta.TransferSyntaxUID == other.file_meta.TransferSyntaxUID:
        return False
    return np.array_equal(one.pixel_array, other.pixel_array)
