# SPDX-License-Identifier: Apache-2.0
"""A segmentation that a PACS has changed is told from one that it has kept."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.dicom.source import read_sources
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from bundle.pyraseg_tools.pacs.comparison import require_same
from tests.helpers.pacs_series import small_series

CLASSES = ["liver", "spleen"]


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    image = read_series(small_series(tmp_path, "one"))
    mask = np.random.default_rng(1).integers(0, 3, image.pixels.shape).astype(np.uint8)
    sources = read_sources(image.files)
    write_segmentation(tmp_path / "sent.dcm", mask, sources, [SegmentClass.organ(name) for name in CLASSES])
    return tmp_path / "sent.dcm"


def change_pixel(seg: pydicom.Dataset) -> None:
    seg.PixelData = bytes([seg.PixelData[0] ^ 1]) + seg.PixelData[1:]


def change_code(seg: pydicom.Dataset) -> None:
    seg.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeValue = "10200004"


def change_reference(seg: pydicom.Dataset) -> None:
    seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def swap_planes(seg: pydicom.Dataset) -> None:
    first, *_, last = seg.PerFrameFunctionalGroupsSequence
    first.PlanePositionSequence, last.PlanePositionSequence = last.PlanePositionSequence, first.PlanePositionSequence


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (change_pixel, "pixels"),
        (change_code, "SegmentSequence"),
        (change_reference, "ReferencedSeriesSequence"),
        (swap_planes, "PerFrameFunctionalGroupsSequence"),
    ],
)
def test_a_change_is_seen(change, text, sent, tmp_path):
    require_same(sent, sent)
    seg = pydicom.dcmread(sent)
    change(seg)
    seg.save_as(tmp_path / "returned.dcm")
    with pytest.raises(PyrasegError, match=text):
        require_same(tmp_path / "returned.dcm", sent)


def test_a_change_of_the_name_or_of_the_compression_is_none(tmp_path):
    """Archives correct names of patients, and compress what they store."""
    (sent, *_) = small_series(tmp_path, "one")
    image = pydicom.dcmread(sent)
    image.PatientName = "Corrected"
    image.compress(RLELossless, generate_instance_uid=False)
    image.save_as(tmp_path / "returned.dcm")
    require_same(tmp_path / "returned.dcm", sent)
    other = pydicom.dcmread(sent)
    other.PixelData = bytes(len(other.PixelData))
    other.compress(RLELossless, generate_instance_uid=False)
    other.save_as(tmp_path / "other.dcm")
    with pytest.raises(PyrasegError, match="other pixels"):
        require_same(tmp_path / "other.dcm", sent)
