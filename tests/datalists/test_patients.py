# SPDX-License-Identifier: Apache-2.0
"""Who is told apart, by what, and when nobody is."""

import logging
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.collecting import are_dicom
from bundle.pyraseg.datalists.patients import Identity, group_patients, join, patients_by_pattern, patients_from_csv

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
    assert patients_from_csv(["a", "b", "c"], path) == ["Anna", "Anna", "Bob"]


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
        patients_from_csv(["a", "b"], table(tmp_path, text))


def test_an_absent_table_is_one_message(tmp_path):
    with pytest.raises(PyrasegError, match=r"There is no file .*none\.csv"):
        patients_from_csv(["a"], tmp_path / "none.csv")


# --- names ---


def test_a_pattern_on_names() -> None:
    assert patients_by_pattern(["12 L", "12 R", "1.2.840 L"], "^(.+)[LR]$") == ["12", "12", "1.2.840"]
    with pytest.raises(PyrasegError, match="finds no patient in the names of 2 cases, such as x"):
        patients_by_pattern(["12L", "x", " L"], "^(.+)[LR]$")


# --- DICOM headers ---


def identity(patient_id: str, study: str, frame: str = "", *, issuer: str = "", stated: str = "") -> Identity:
    header = Dataset()
    header.PatientID, header.StudyInstanceUID, header.FrameOfReferenceUID = patient_id, study, frame
    header.IssuerOfPatientID = issuer
    return Identity.of(header, f"series of {study}", stated)


def groups(identities: list[Identity], by: str = "auto", **options: object) -> list[int]:
    """Return the groups as numbers in the order of their first images."""
    names = group_patients(identities, by, **options)
    assert names == [f"p{int(name[1:]):04d}" for name in names]  # whom they stand for is not told
    return [list(dict.fromkeys(names)).index(name) for name in names]


def test_images_are_joined_by_any_of_the_three(caplog: pytest.LogCaptureFixture) -> None:
    assert groups([identity("A", "1"), identity("B", "2"), identity("A", "3")]) == [0, 1, 0]
    assert not caplog.records
    assert groups([identity("A", "1"), identity("B", "1"), identity("C", "2")]) == [0, 0, 1]
    assert "3 Patient IDs are 2 patients" in caplog.text
    assert groups([identity("A", "1", "2.1"), identity("B", "2", "2.1"), identity("C", "3")]) == [0, 0, 1]
    # A Patient ID links the first to the second, a study the second to the third.
    assert groups([identity("A", "1"), identity("A ", "2"), identity("", "2"), identity("B", "3")]) == [0, 0, 0, 1]


def test_ids_are_compared_without_blanks_and_else_as_they_are() -> None:
    assert groups([identity(" A", "1"), identity("A  ", "2"), identity("a", "3"), identity("0A", "4")]) == [0, 0, 1, 2]


def test_an_issuer_tells_apart_where_all_name_one() -> None:
    ours, theirs = identity("7", "1", issuer="H1 "), identity("7", "2", issuer="H2")
    assert groups([ours, theirs, identity("7", "3", issuer=" H1")]) == [0, 1, 0]
    nameless = identity("7", "4")  # may be either: nothing is divided
    assert groups([ours, theirs, nameless, identity("8", "5", issuer="H1")]) == [0, 0, 0, 1]


def test_one_image_needs_no_patient() -> None:
    assert groups([identity("", "")]) == [0]


def test_empty_ids_are_refused_unless_studies_are_patients(caplog: pytest.LogCaptureFixture) -> None:
    identities = [identity("A", "1"), identity("  ", "2"), identity("", "3")]
    with pytest.raises(PyrasegError, match=r"2 of 3 images have no Patient ID, such as series of 2: .* in a table, or"):
        groups(identities)
    assert groups(identities, "study") == [0, 1, 2]
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert groups([*identities, identity("", "3")], strict=False) == [0, 1, 2, 2]
    assert "3 of 4 images have no known patient" in caplog.text


def test_one_id_in_several_studies_is_refused_unless_it_is_believed() -> None:
    identities = [identity("ANON", "1"), identity("ANON", "1"), identity("ANON", "2")]
    with pytest.raises(PyrasegError, match="All 3 images have the same Patient ID, in 2 studies") as refused:
        groups(identities)
    assert "ANON" not in str(refused.value)
    assert groups(identities, "patient") == groups(identities, strict=False) == [0, 0, 0]
    assert groups(identities, "study") == [0, 0, 1]
    assert groups(identities[:2]) == [0, 0]  # one study is one patient


def test_what_the_user_states_comes_first() -> None:
    identities = [identity("ANON", "1", stated="x"), identity("ANON", "1", stated="y"), identity("", "2", stated="x ")]
    assert groups(identities) == [0, 1, 0]


def test_images_that_nothing_is_known_of_stand_alone() -> None:
    assert groups([Identity("a"), Identity("b"), Identity("c", stated="x")], strict=False) == [0, 1, 2]


def test_an_unknown_grouping_is_refused() -> None:
    with pytest.raises(PyrasegError, match="one of auto, patient, study, not by 'name'"):
        groups([identity("A", "1")], "name")


def test_what_is_dicom(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    images = [{"image": str(tmp_path / name)} for name in ("series", "x.dcm", "IM0001")]
    assert are_dicom(images)
    assert not are_dicom([*images, {"image": "a.nii.gz"}])
