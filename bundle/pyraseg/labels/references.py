# SPDX-License-Identifier: Apache-2.0
"""Which images a label object (SEG, RTSTRUCT) was drawn on, by the UIDs that it refers to."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError

#: Sequences that lead to a Series Instance UID: PS3.3 C.12.4 (SEG), C.8.8.5 (RTSTRUCT).
_SERIES = (
    ("ReferencedSeriesSequence",),
    ("ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence", "RTReferencedSeriesSequence"),
)
#: Sequences that lead to a Frame of Reference UID.
_FRAMES_OF_REFERENCE = ((), ("ReferencedFrameOfReferenceSequence",))
#: Sequences that lead to a Referenced SOP Instance UID.
_INSTANCES = (
    ("ReferencedSeriesSequence", "ReferencedInstanceSequence"),
    ("SharedFunctionalGroupsSequence", "DerivationImageSequence", "SourceImageSequence"),
    ("PerFrameFunctionalGroupsSequence", "DerivationImageSequence", "SourceImageSequence"),
    (*_SERIES[1], "ContourImageSequence"),
    ("ROIContourSequence", "ContourSequence", "ContourImageSequence"),
)


@dataclass(frozen=True)
class References:
    """Hold what a label object refers to, and the names of its segments or regions of interest."""

    series_uids: frozenset[str]
    frame_of_reference_uids: frozenset[str]
    sop_instance_uids: frozenset[str]
    names: tuple[str, ...]


def read_references(path: str | Path) -> References:
    """Read the references of a SEG or RTSTRUCT from its header.

    Raises:
        PyrasegError: the file cannot be read.
    """
    try:
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        series = _values(dataset, _SERIES, "SeriesInstanceUID")
        frames = _values(dataset, _FRAMES_OF_REFERENCE, "FrameOfReferenceUID")
        instances = _values(dataset, _INSTANCES, "ReferencedSOPInstanceUID")
        segments = _values(dataset, [("SegmentSequence",)], "SegmentLabel")
        regions = _values(dataset, [("StructureSetROISequence",)], "ROIName")
    except Exception as error:  # Damaged files make pydicom raise nearly every type there is.
        raise PyrasegError(f"{path}: what this label refers to cannot be read. Export it again.") from error
    return References(*map(frozenset, (series, frames, instances)), names=tuple(sorted(segments | regions)))


def _values(dataset: Dataset, paths: tuple | list, keyword: str) -> set[str]:
    return {str(item.get(keyword)) for path in paths for item in _items(dataset, path) if item.get(keyword)}


def _items(dataset: Dataset, path: tuple[str, ...]) -> Iterator[Dataset]:
    """Yield the items of nested sequences."""
    if not path:
        yield dataset
        return
    for item in dataset.get(path[0]) or []:
        yield from _items(item, path[1:])
