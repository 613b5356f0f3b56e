# SPDX-License-Identifier: Apache-2.0
"""Who is told apart, by what, and when nobody is."""

from pathlib import Path

import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.patients import are_dicom, join, patients_from_csv, patients_from_dicom
from tests.helpers.dicom_files import uid, write_series


def items(*cases: str) -> list[dict[str, str]]:
    return [{"image": f"/images/{case}.png", "label": f"/labels/{case}.png", "patient": case} for case in cases]


# --- links ---


def test_links_reach_through_others():
    assert join([["x"], ["y"], ["x", "z"], [], ["z"]]) == ["p0001", "p0002", "p0001", "p0003", "p0001"]
    assert join([[], [], [], []], [(2, 3), (0, 3)]) == ["p0001", "p0002", "p0001", "p0001"]
    assert join([["a"], ["b"], ["b"]], [(0, 1)]) == ["p0001"] * 3
    assert join([]) == []


# --- a table ---


def table(folder: Path, text: str) -> Path:
    path = folder / "patients.csv"
    path.write_text(text, encoding="utf-8-sig")  # as spreadsheets write it
    return path


def test_table(tmp_path):
    path = table(tmp_path, "patient,case,age\nAnna, a ,7\nAnna,b,8\nBob,c,9\nEve,other,1\n")
    assert patients_from_csv(items("a", "b", "c"), path) == ["Anna", "Anna", "Bob"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,case\nAnna,a\n", "has the columns name, case and lacks patient"),
        ("", "has the columns none"),
        ("case,patient\na,Anna\n", "names no patient for 1 of 2 cases, such as b"),
        ("case,patient\na,Anna\nb,\n", "names no patient for 1 of 2 cases, such as b"),
        ("case,patient\na,Anna\nb,Bob\na,Bob\n", "gives the case a to two patients"),
    ],
)
def test_refused_tables(tmp_path, text, message):
    with pytest.raises(PyrasegError, match=message):
        patients_from_csv(items("a", "b"), table(tmp_path, text))


def test_an_absent_table_is_one_message(tmp_path):
    with pytest.raises(PyrasegError, match=r"There is no file .*none\.csv"):
        patients_from_csv(items("a"), tmp_path / "none.csv")


# --- DICOM headers ---


def series(folder: Path, case: str, patient: str | None, **words: str) -> dict[str, str]:
    """Write a series; study and frame of reference are its own unless named."""
    study, frame = words.get("study", case), words.get("frame", case)
    write_series(
        folder / case, np.zeros((1, 4, 4), np.int16), PatientID=patient, StudyInstanceUID=uid("study", study),
        SeriesInstanceUID=uid("series", case), FrameOfReferenceUID=uid("frame", frame),
    )  # fmt: skip
    return {"image": str(folder / case), "label": "", "patient": case}


def test_the_same_patient_id_study_or_frame_of_reference_is_one_patient(tmp_path, caplog):
    found = [
        series(tmp_path, "a", "1"),
        series(tmp_path, "b", "1"),
        series(tmp_path, "c", "2"),
        series(tmp_path, "d", "3", study="c"),
        series(tmp_path, "e", "4", frame="d"),
        series(tmp_path, "f", "5"),
    ]
    assert patients_from_dicom(found) == ["p0001", "p0001", "p0002", "p0002", "p0002", "p0003"]
    assert "5 Patient IDs are 3 patients" in caplog.text
    numbers = ["p0001", "p0002", "p0003", "p0003", "p0003", "p0004"]
    assert patients_from_dicom(found, use_patient_id=False) == numbers


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (("1", "", "2"), "1 of 3 images have an empty Patient ID"),
        (("1", None, " "), "2 of 3 images have an empty Patient ID"),
        (("ANON", "ANON", "ANON"), "all 3 images have the same Patient ID"),
    ],
)
def test_an_empty_or_constant_patient_id_is_no_group(tmp_path, ids, message):
    found = [series(tmp_path, case, patient) for case, patient in zip("abc", ids, strict=True)]
    with pytest.raises(PyrasegError, match=message) as refusal:
        patients_from_dicom(found)
    assert "--patient-csv" in str(refusal.value) and "ANON" not in str(refusal.value)
    assert patients_from_dicom(found, use_patient_id=False) == ["p0001", "p0002", "p0003"]


def test_what_is_dicom(tmp_path):
    (tmp_path / "series").mkdir()
    images = [{"image": str(tmp_path / name)} for name in ("series", "x.dcm", "IM0001")]
    assert are_dicom(images)
    assert not are_dicom([*images, {"image": "a.nii.gz"}])
