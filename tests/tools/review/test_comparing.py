# SPDX-License-Identifier: Apache-2.0
"""The Dice of a result and its correction, of files that highdicom wrote."""

import numpy as np
import pydicom
import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.labels.references import ImageGrid
from bundle.pyraseg_tools.review.comparing import are_equal, compare_segmentations
from tests.helpers.dicom_files import uid
from tests.helpers.reviews import write_by_highdicom, write_scan


@pytest.fixture
def scan(tmp_path):
    return write_scan(tmp_path / "scan")


def test_dice_of_each_structure(scan, tmp_path):
    """16 voxels of which 12 stay and 8 come: 2 * 12 / (16 + 20); a lesion that is found by one alone: 0."""
    result, correction = np.zeros((2, 3, 8, 8), np.uint8)
    result[1, 2:6, 2:6] = 1
    correction[1, 2:6, 3:8] = 1
    correction[2, 0, 0] = 2
    first = write_by_highdicom(tmp_path / "result.dcm", scan, result)
    second = write_by_highdicom(
        tmp_path / "correction.dcm", scan, correction, "SEMIAUTOMATIC", names=["Liver", "lesion", "spleen"]
    )
    found = compare_segmentations(first, second, ImageGrid.of(read_series(scan)))
    assert found == pytest.approx({"liver": 2 * 12 / 36, "lesion": 0, "spleen": float("nan")}, nan_ok=True)
    assert not are_equal(found)


def test_structures_that_overlap(scan, tmp_path):
    """The lesion lies in the liver: each is compared alone."""
    mask = np.zeros((3, 8, 8, 2), np.uint8)
    mask[1, 1:7, 1:7, 0], mask[1, 3:5, 3:5, 1] = 1, 1
    smaller = mask.copy()
    smaller[1, 3, 3:5, 1] = 0
    files = [
        write_by_highdicom(tmp_path / "result.dcm", scan, mask),
        write_by_highdicom(tmp_path / "correction.dcm", scan, smaller, "SEMIAUTOMATIC"),
    ]
    found = compare_segmentations(*files, ImageGrid.of(read_series(scan)))
    assert found == pytest.approx({"liver": 1, "lesion": 2 * 2 / 6})
    assert are_equal(compare_segmentations(files[0], files[0], ImageGrid.of(read_series(scan))))


def test_a_correction_of_another_image_is_refused(scan, tmp_path):
    mask = np.ones((3, 8, 8), np.uint8)
    first = write_by_highdicom(tmp_path / "result.dcm", scan, mask)
    other = write_scan(tmp_path / "other")
    for file in other.glob("*.dcm"):
        image = pydicom.dcmread(file)
        image.SeriesInstanceUID, image.FrameOfReferenceUID = uid("other series"), uid("other frame")
        image.save_as(file)
    second = write_by_highdicom(tmp_path / "correction.dcm", other, mask, "SEMIAUTOMATIC")
    with pytest.raises(PyrasegError, match="drawn on other images"):
        compare_segmentations(first, second, ImageGrid.of(read_series(scan)))
