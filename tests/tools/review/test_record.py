# SPDX-License-Identifier: Apache-2.0
"""A decision says who, when, which model, which result and which scanner, and never who the patient is."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pydicom
import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.review.record import decide, read_result
from tests.helpers.reviews import MADE_BY, WEIGHTS, write_by_highdicom, write_scan

MASK = np.zeros((3, 8, 8), np.uint8)
MASK[1, 2:6, 2:6] = 1


@pytest.fixture
def scan(tmp_path):
    return write_scan(tmp_path / "scan")


def test_a_decision_is_complete(scan, tmp_path):
    path = write_by_highdicom(tmp_path / "seg.dcm", scan, MASK)
    result, header = read_result(path)
    image = pydicom.dcmread(next(scan.glob("*.dcm")))
    review = decide("amended", result, image, " radiologist ", correction="2.25.1", dice={"a": 0.5, "b": float("nan")})
    assert (review.result.uid, review.result.series_uid) == (header.SOPInstanceUID, header.SeriesInstanceUID)
    assert (review.result.algorithm.name, review.result.algorithm.version) == MADE_BY
    assert review.model == f"pyraseg_phantom {WEIGHTS}" and review.scanner == "Maker Scanner 7"
    assert review.image_series_uid == image.SeriesInstanceUID and review.reviewer == "radiologist"
    assert review.dice == {"a": 0.5}
    assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(review.time) < timedelta(seconds=9)
    assert "SECRET" not in review.line() and "Secret" not in review.line()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "user name or a role"),
        ("a\nb", "user name or a role"),
        ("x" * 65, "user name or a role"),
        ("secret name", "as the patient"),
        ("Secret-ID", "as the patient"),
    ],
)
def test_reviewers_are_no_patients(scan, tmp_path, name, message):
    result, _ = read_result(write_by_highdicom(tmp_path / "seg.dcm", scan, MASK))
    with pytest.raises(PyrasegError, match=message) as error:
        decide("accepted", result, pydicom.dcmread(next(scan.glob("*.dcm"))), name)
    assert not name or name not in str(error.value)


def test_what_a_person_made_is_no_result(scan, tmp_path):
    path = write_by_highdicom(tmp_path / "seg.dcm", scan, MASK, "SEMIAUTOMATIC")
    with pytest.raises(PyrasegError, match="Segment Algorithm Type is SEMIAUTOMATIC"):
        read_result(path)
    with pytest.raises(PyrasegError, match="it has no segments"):
        read_result(next(scan.glob("*.dcm")))
    (tmp_path / "text").write_text("no DICOM")
    with pytest.raises(PyrasegError, match="cannot be read as DICOM"):
        read_result(tmp_path / "text")
