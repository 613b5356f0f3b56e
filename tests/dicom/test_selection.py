# SPDX-License-Identifier: Apache-2.0
"""Slices that lie in the same place are named by what tells them apart, and `select` chooses among them."""

import numpy as np
import pydicom
import pytest

from bundle.pyraseg.dicom.series import read_series
from tests.helpers.dicom_files import item, refusal, save, uid, write_enhanced, write_series

STACK = np.random.default_rng(0).integers(-1000, 1000, (5, 32, 40), dtype=np.int16)


@pytest.mark.parametrize(
    ("keyword", "values", "wanted"),
    [
        ("AcquisitionNumber", (1, 2), 2),
        ("EchoTime", (4.6, 9.2), "9.2"),
        ("TemporalPositionIdentifier", (1, 2), 2.0),
        ("DiffusionBValue", (0.0, 800.0), 800),
        ("ContrastBolusAgent", (None, "AGENT"), "AGENT"),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]), ["ORIGINAL", "PRIMARY", "P"]),
    ],
)
def test_duplicate_positions_name_what_differs_and_select_chooses(tmp_path, keyword, values, wanted):
    for k, value in enumerate(values):
        own = {keyword: value, "ContentTime": f"10000{k}"}
        write_series(tmp_path, STACK + k, names=[f"{k}{i}" for i in range(5)], Modality="MR", **own)
    message = refusal(tmp_path)
    assert "10 slices lie in 5 places" in message
    assert "(00, 10 in the same one)" in message
    assert f"differ in {keyword}: " in message
    assert f"--select {keyword}=" in message
    np.testing.assert_array_equal(read_series(tmp_path, select={keyword: wanted}).pixels, STACK + 1)


def test_select_reaches_the_frames_of_an_enhanced_object(tmp_path):
    positions = [(0, 0, k // 2) for k in range(4)]
    path = write_enhanced(
        tmp_path / "a",
        STACK[:4],
        positions,
        per_frame=lambda k: {"FrameContentSequence": item(TemporalPositionIndex=k % 2 + 1)},
    )
    assert "differ in TemporalPositionIndex: 1 (2), 2 (2)" in refusal(path)
    image = read_series(path, select={"TemporalPositionIndex": 2})
    np.testing.assert_array_equal(image.pixels, STACK[[1, 3]])
    assert image.frame_numbers == (2, 4)


def test_select_that_finds_nothing_or_is_misspelt_is_refused(tmp_path):
    write_series(tmp_path, STACK, AcquisitionNumber=3)
    assert "no slice has AcquisitionNumber = 4. There are: 3 (5)" in refusal(tmp_path, select={"AcquisitionNumber": 4})
    assert "The nearest name is 'AcquisitionNumber'" in refusal(tmp_path, select={"AquisitionNumber": 3})
    assert len(read_series(tmp_path, select={"ProtocolName": ""}).pixels) == 5  # any keyword, absent ones too


def test_refuses_the_same_slice_twice(tmp_path):
    files = write_series(tmp_path, STACK)
    copy = pydicom.dcmread(files[1])
    copy.SOPInstanceUID = uid("exported anew")
    save(copy, tmp_path / "copy.dcm")
    message = refusal(tmp_path)
    assert "copy.dcm, slice_001.dcm" in message
    assert "Remove the copies" in message
