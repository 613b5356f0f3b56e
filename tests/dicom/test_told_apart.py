# SPDX-License-Identifier: Apache-2.0
"""What an anonymizer or a medium put under one series UID is told apart, and what is one series stays one."""

import hashlib
import logging
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.pairing import find_pairs
from bundle.pyraseg.dicom.scan import find_series
from bundle.pyraseg.dicom.series import SeriesStream, read_series
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from bundle.pyraseg.runtime.find import find_inputs
from tests.helpers.dicom_files import PATIENT, refusal, uid, write_image, write_series

ONE = np.random.default_rng(0).integers(-1000, 1000, (6, 16, 20), dtype=np.int16)
OTHER = np.random.default_rng(1).integers(-1000, 1000, (6, 16, 20), dtype=np.int16)


def patients(root: Path, one: dict, other: dict, *, apart: float = 1.5, **both: object) -> None:
    """Write two stacks of 6 slices of 3 mm under equal UIDs, the second one shifted by some mm."""
    both = {"slice_step": 3, "SliceThickness": 3, **both}
    write_series(root / "A", ONE, **both, **one)
    write_series(root / "B", OTHER, origin=(0, 0, apart), **both, **other)


def same_number(k: int) -> dict:
    return {"InstanceNumber": 1}


FORMS = {
    "other Patient IDs": ({"PatientID": "SECRET-A"}, {"PatientID": "SECRET-B"}, {}),
    "other Patient IDs, no telling numbers": (
        {"PatientID": "SECRET-A"}, {"PatientID": "SECRET-B"}, {"per_slice": same_number}),
    "other names under no Patient ID": (
        {"PatientID": "", "PatientName": "Secret^A"}, {"PatientID": "", "PatientName": "Secret^B"}, {}),
    "one Patient ID is missing": ({"PatientID": ""}, {}, {}),
    "the same Patient ID": ({}, {}, {}),
    "the same Patient ID, no telling numbers": ({}, {}, {"per_slice": same_number}),
    "no Patient ID": ({}, {}, {"PatientID": None, "PatientName": None}),
    "no Patient ID and no numbers": ({}, {}, {"PatientID": None, "PatientName": None, "InstanceNumber": None}),
    "the same places": ({}, {}, {"apart": 0}),
    "other places, the same numbers": ({}, {}, {"apart": 100}),
    "another study": ({"StudyInstanceUID": uid("one")}, {"StudyInstanceUID": uid("other")}, {}),
    "numbers that go on": ({}, {"per_slice": lambda k: {"InstanceNumber": k + 7}}, {}),
    "the same instance UIDs": (
        {"per_slice": lambda k: {"SOPInstanceUID": uid("instance", k)}},
        {"per_slice": lambda k: {"SOPInstanceUID": uid("instance", k), "InstanceNumber": k + 100}}, {}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_two_patients_under_equal_uids_are_two_inputs(tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str):
    one, other, both = FORMS[form]
    patients(tmp_path, one, other, **both)
    with caplog.at_level(logging.WARNING):
        inputs = find_inputs(tmp_path)
    assert [item["name"] for item in inputs] == ["A", "B"]
    for item, pixels in zip(inputs, (ONE, OTHER), strict=True):
        image = read_series(item["image"])
        np.testing.assert_array_equal(image.pixels, pixels)
        assert image.series_uid == uid("series")
    assert f"The series UID {uid('series')} stands for 2 different series" in caplog.text
    assert "SECRET" not in caplog.text and "Secret" not in caplog.text
    message = refusal(tmp_path)
    assert "holds 2 series" in message and f"{uid('series')}:2" in message
    np.testing.assert_array_equal(read_series(tmp_path, series=f"{uid('series')}:2").pixels, OTHER)


def test_patients_are_told_by_numbers_that_nothing_of_them_can_be_found_from(tmp_path: Path, caplog) -> None:
    for folder, patient, study in [("A", "4711", "one"), ("B", "4712", "two"), ("C", "4711", "three"), ("D", "", "")]:
        write_series(tmp_path / folder, ONE, PatientID=patient, PatientName="", StudyInstanceUID=study and uid(study))
    assert len(find_series(tmp_path).series) == 4
    told = [caplog.text.partition(f"{tmp_path / folder}, of ")[2].partition(";")[0] for folder in "ABC"]
    assert told == ["patient 1", "patient 2", "patient 1"]
    assert f"{tmp_path / 'D'}, of a patient without an ID. Each" in caplog.text
    text = caplog.text.replace(str(tmp_path), "").replace(uid("series"), "")
    for patient in ("4711", "4712"):
        for algorithm in ("md5", "sha1", "sha256", "sha512", "blake2b"):
            assert hashlib.new(algorithm, patient.encode()).hexdigest()[:6] not in text
    assert "471" not in text


def test_files_of_two_patients_that_a_pacs_gives_as_one_series_are_refused(tmp_path: Path) -> None:
    patients(tmp_path, {"PatientID": "SECRET-A"}, {"PatientID": "SECRET-B"})
    files = sorted(str(file) for file in tmp_path.rglob("*.dcm"))
    with pytest.raises(PyrasegError, match="holds 2 series"):
        SeriesStream(files)
    with pytest.raises(PyrasegError, match="holds 2 series"):
        read_series(files)


def test_patients_mixed_in_one_folder_are_two_inputs(tmp_path: Path) -> None:
    patients(tmp_path, {"PatientID": "SECRET-A"}, {"PatientID": "SECRET-B"})
    for folder in ("A", "B"):
        for file in (tmp_path / folder).iterdir():
            shutil.move(file, tmp_path / f"{folder}{file.name}")
        (tmp_path / folder).rmdir()
    found = find_inputs(tmp_path)
    assert len({item["name"] for item in found}) == 2
    for item, pixels in zip(found, (ONE, OTHER), strict=True):
        np.testing.assert_array_equal(read_series(item["image"]).pixels, pixels)


def test_patients_mixed_in_one_folder_without_any_name_are_refused(tmp_path: Path) -> None:
    nameless = {"PatientID": None, "PatientName": None, "slice_step": 3, "SliceThickness": 3}
    write_series(tmp_path, ONE, names=[f"a{k}" for k in range(6)], **nameless)
    write_series(tmp_path, OTHER, names=[f"b{k}" for k in range(6)], origin=(0, 0, 1.5), **nameless)
    message = refusal(tmp_path)
    assert "6 image numbers stand 2 times each" in message and "3 mm thick lie 1.5 mm apart" in message


@pytest.mark.parametrize("apart", [1.5, 18])
def test_numbers_that_begin_anew_are_no_fault_of_a_stack(tmp_path: Path, apart: float) -> None:
    """Stations of a table one after the other, and packages of every other slice, are numbered so."""
    options = {"slice_step": 3, "SliceThickness": 1.5}
    write_series(tmp_path, ONE, names=[f"a{k}" for k in range(6)], **options)
    write_series(tmp_path, OTHER, names=[f"b{k}" for k in range(6)], origin=(0, 0, apart), **options)
    assert len(read_series(tmp_path).pixels) == 12


def test_other_sizes_in_other_folders_are_two_inputs(tmp_path: Path) -> None:
    write_series(tmp_path / "A", ONE, slice_step=3)
    numbers = {"per_slice": lambda k: {"InstanceNumber": k + 7}}
    write_series(tmp_path / "B", OTHER[:, :, 4:], slice_step=3, **numbers)
    assert [item["name"] for item in find_inputs(tmp_path)] == ["A", "B"]


@pytest.mark.parametrize("numbers", ["telling", "all the same", "missing"])
@pytest.mark.parametrize("halves", ["every other slice", "one after the other"])
def test_a_series_spread_over_folders_is_one(tmp_path: Path, numbers: str, halves: str) -> None:
    names = [f"DIR{k % 2 if halves == 'every other slice' else k // 3}/IM{k}" for k in range(6)]
    number = {"telling": {}, "all the same": {"per_slice": same_number}, "missing": {"InstanceNumber": None}}
    write_series(tmp_path, ONE, slice_step=3, SliceThickness=3, names=names, **number[numbers])
    (item,) = find_inputs(tmp_path)
    np.testing.assert_array_equal(read_series(item["image"]).pixels, ONE)
    np.testing.assert_array_equal(read_series(tmp_path).pixels, ONE)


def test_phases_in_folders_of_their_own_are_inputs_of_their_own_if_they_are_numbered_alike(tmp_path: Path) -> None:
    patients(tmp_path / "alike", {"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}, apart=0)
    assert len(find_inputs(tmp_path / "alike")) == 2
    numbers = {"per_slice": lambda k: {"InstanceNumber": k + 7, "AcquisitionNumber": 2}}
    patients(tmp_path / "on", {"AcquisitionNumber": 1}, numbers, apart=0)
    assert len(find_inputs(tmp_path / "on")) == 1
    assert "AcquisitionNumber" in refusal(tmp_path / "on")


@pytest.mark.parametrize("where", ["the same folder", "another folder"])
def test_copies_are_read_once_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str) -> None:
    files = write_series(tmp_path / "A", ONE, slice_step=3)
    for file in files[:4] if where == "the same folder" else files:
        copy = file.with_name(f"{file.stem} (1).dcm") if where == "the same folder" else tmp_path / "B" / file.name
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(file, copy)
    with caplog.at_level(logging.WARNING):
        (item,) = find_inputs(tmp_path)
    assert item["name"] == "A"
    np.testing.assert_array_equal(read_series(item["image"]).pixels, ONE)
    count = 4 if where == "the same folder" else 6
    assert f"{count} files hold an image of another file once more and are left out" in caplog.text


def test_one_instance_uid_for_all_slices_makes_no_copies(tmp_path: Path) -> None:
    """Outer slices may be equal: all air."""
    write_series(tmp_path, np.zeros((4, 8, 9), np.int16), per_slice=lambda k: {"SOPInstanceUID": uid("same")})
    assert len(read_series(tmp_path).pixels) == 4


def test_a_study_of_its_own_for_each_slice_says_nothing(tmp_path: Path) -> None:
    write_series(tmp_path, ONE, per_slice=lambda k: {"StudyInstanceUID": uid("study", k)})
    np.testing.assert_array_equal(read_series(tmp_path).pixels, ONE)


def test_radiographs_of_many_people_under_one_uid(tmp_path: Path) -> None:
    for k in range(3):
        write_image(tmp_path / f"{k}.dcm", ONE[k], PatientID=f"SECRET-{k}", Modality="DX", FrameOfReferenceUID=None)
    assert [item["name"] for item in find_inputs(tmp_path)] == ["0", "1", "2"]


def test_labels_find_the_images_that_they_name_under_equal_uids(tmp_path: Path) -> None:
    patients(tmp_path, {"PatientID": "SECRET-A"}, {"PatientID": "SECRET-B"}, **PATIENT)
    for folder in ("A", "B"):
        sources = [pydicom.dcmread(file) for file in sorted((tmp_path / folder).iterdir())]
        mask = np.ones(ONE.shape, np.uint8)
        write_segmentation(tmp_path / "labels" / f"{folder}.dcm", mask, sources, [SegmentClass.organ("liver")])
    _, pairs = find_pairs(tmp_path)
    assert [(Path(pair["image"]).name, Path(pair["label"]).name) for pair in pairs] == [("A", "A.dcm"), ("B", "B.dcm")]


def test_the_scan_keeps_no_identity(tmp_path: Path) -> None:
    write_series(tmp_path, ONE)
    (series,) = find_series(tmp_path).series
    assert series.patient not in ("", "SECRET-ID")
    assert all("PatientID" not in header and "PatientName" not in header for header in series.headers)
    (series,) = find_series(tmp_path, keywords=["PatientID"]).series
    assert series.headers[0].PatientID == "SECRET-ID"
