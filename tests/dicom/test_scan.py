# SPDX-License-Identifier: Apache-2.0
"""What is found in a folder: series, with and without UIDs, and what is passed over and counted."""

import logging

import numpy as np
from pydicom.uid import (
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
)

from bundle.pyraseg.dicom.scan import find_series
from bundle.pyraseg.dicom.series import read_series
from tests.helpers.dicom_files import CORONAL, refusal, uid, write_image, write_series

STACK = np.random.default_rng(0).integers(-1000, 1000, (5, 32, 40), dtype=np.int16)


def test_missing_uids_are_no_obstacle(tmp_path):
    none = dict.fromkeys(["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
    for folder in ("one", "two"):
        write_series(tmp_path / folder, STACK, per_slice=lambda k: none)
    scan = find_series(tmp_path)
    assert [(series.uid, series.has_uid, series.frames) for series in scan.series] == [
        ("no-uid:one:1", False, 5),
        ("no-uid:two:1", False, 5),
    ]
    image = read_series(tmp_path, series="no-uid:two:1")
    assert image.series_uid == ""
    assert image.sop_instance_uids == ("",) * 5
    assert {file.parent.name for file in image.files} == {"two"}


def test_other_objects_are_skipped_and_counted(tmp_path):
    write_series(tmp_path, STACK)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "empty.dcm").write_bytes(b"")
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": list(CORONAL)}
    write_image(tmp_path / "scout.dcm", STACK[0], **scout)
    capture = {"SOPClassUID": SecondaryCaptureImageStorage, "SeriesInstanceUID": uid("dose")}
    write_image(tmp_path / "deep" / "dose.dcm", STACK[0], **capture)
    for modality in ("SR", "RTSTRUCT", "KO"):
        nothing = dict.fromkeys(["PixelData", "Rows", "Columns"])
        write_image(tmp_path / f"{modality}.dcm", STACK[0], Modality=modality, **nothing)
    write_image(tmp_path / "seg.dcm", STACK[0], Modality="SEG")
    write_image(tmp_path / "DICOMDIR", STACK[0], SOPClassUID=MediaStorageDirectoryStorage)
    scan = find_series(tmp_path)
    assert len(scan.series) == 1
    assert scan.skipped == {
        "not DICOM": 2,
        "localizer": 1,
        "screen capture": 1,
        "SR object": 1,
        "RTSTRUCT object": 1,
        "KO object": 1,
        "SEG object": 1,
        "DICOMDIR": 1,
    }
    assert [file.name for file in scan.skipped_files["screen capture"]] == ["dose.dcm"]
    np.testing.assert_array_equal(read_series(tmp_path).pixels, STACK)


def test_the_scan_reports_what_it_skips(tmp_path, caplog):
    write_series(tmp_path, STACK)
    (tmp_path / "notes.txt").write_text("not an image")
    with caplog.at_level(logging.INFO):
        read_series(tmp_path)
    assert "skipped 1 not DICOM" in caplog.text


def test_refuses_paths_without_images(tmp_path):
    assert "nowhere does not exist" in refusal(tmp_path / "nowhere")
    assert "empty folder" in refusal(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    write_image(tmp_path / "seg", STACK[0], Modality="SEG")
    assert "1 SEG object, 1 not DICOM" in refusal(tmp_path)


def test_refuses_several_series_without_a_choice(tmp_path):
    write_series(tmp_path / "a", STACK, SeriesInstanceUID="1.2.3")
    write_series(tmp_path / "b", STACK[:2], SeriesInstanceUID="1.2.4", SeriesDescription="Secret")
    message = refusal(tmp_path)
    assert "1.2.3 (CT, 5 slices of 32x40)" in message
    assert '1.2.4 (CT, 2 slices of 32x40, "***")' in message
    assert "--series 1.2.3" in message
    assert len(read_series(tmp_path, series="1.2.4").pixels) == 2
    assert "--series 1.2.5 means none of the series in" in refusal(tmp_path, series="1.2.5")
