# SPDX-License-Identifier: Apache-2.0
"""A segmentation that a PACS has changed is told from one that it has kept."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from bundle.pyraseg.core import Structures
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.dicom.source import read_sources
from bundle.pyraseg.labels.references import ImageGrid
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from bundle.pyraseg_tools.pacs.transfer import require_same
from tests.helpers.pacs_series import small_series

CLASSES = ["background", "liver", "spleen"]


@pytest.fixture
def sent(tmp_path: Path) -> tuple[Path, np.ndarray, ImageGrid]:
    image = read_series(small_series(tmp_path, "one"))
    mask = np.random.default_rng(1).integers(0, 3, image.pixels.shape).astype(np.uint8)
    sources = read_sources(image.files)
    write_segmentation(tmp_path / "sent.dcm", mask, sources, [SegmentClass.organ(name) for name in CLASSES[1:]])
    return tmp_path / "sent.dcm", mask, ImageGrid.of(image)


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
        (swap_planes, "pixels|overlap"),
    ],
)
def test_a_change_is_seen(change, text, sent, tmp_path):
    path, mask, grid = sent
    require_same(path, path, mask, grid, Structures(CLASSES))
    seg = pydicom.dcmread(path)
    change(seg)
    seg.save_as(tmp_path / "returned.dcm")
    with pytest.raises(PyrasegError, match=text):
        require_same(tmp_path / "returned.dcm", path, mask, grid, Structures(CLASSES))
