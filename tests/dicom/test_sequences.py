# SPDX-License-Identifier: Apache-2.0
"""Sequences are found by what series and files are called; what is ambiguous or missing is named."""

from pathlib import Path

import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import find_sequences, find_series, group_files, group_series, read_sequences
from tests.helpers.sequence_study import SEQUENCES, write_patient

WANTED = read_sequences(SEQUENCES)


def test_a_study_is_a_case(tmp_path):
    for patient in (1, 2):
        write_patient(tmp_path / str(patient), patient)
    cases = group_series(find_series(tmp_path).series, WANTED)
    assert [case.place for case in cases] == [str(tmp_path / "1"), str(tmp_path / "2")]
    for case in cases:
        found = {name: Path(part.files[0]).parent for name, part in case.parts.items()}
        assert found == {name: Path(case.place) / name for name in ("t1", "flair")} and not case.fault


def test_what_is_missing_is_named_with_the_case(tmp_path):
    write_patient(tmp_path, 1, flair=False)
    (case,) = group_series(find_series(tmp_path).series, WANTED)
    assert case.place == str(tmp_path / "t1") and not case.parts
    assert case.fault.startswith("lacks the sequence flair (*FLAIR*). Its series: ") and "T1 MPR iso" in case.fault
    (case,) = group_series(find_series(tmp_path).series, WANTED, allow_missing=True)
    assert list(case.parts) == ["t1", "flair"] and case.parts["flair"] is None and not case.fault


def test_two_series_for_one_sequence_are_refused_by_name(tmp_path):
    write_patient(tmp_path, 1)
    (case,) = group_series(find_series(tmp_path).series, read_sequences({"t1": "T1*", "flair": "*"}))
    assert "has 2 series for the sequence flair (*)" in case.fault
    assert "T1 MPR iso" in case.fault and "Sag FLAIR fs" in case.fault


def test_one_series_for_two_sequences_is_refused(tmp_path):
    write_patient(tmp_path, 1, flair=False)
    (case,) = group_series(find_series(tmp_path).series, read_sequences({"t1": "T1*", "mpr": "*MPR*"}))
    assert "has one of the series for both t1 and mpr" in case.fault


def test_files_are_told_by_the_ends_of_their_names():
    wanted = read_sequences({"t1": "0000", "flair": "FLAIR; 0001"})
    names = [
        "a/BraTS_001_t1.nii.gz", "a/BraTS_001_flair.nii.gz", "a/BraTS_001_seg.nii.gz", "b/sub-1_T1.nii", "c/t1.nrrd",
        "b/sub-1_acq-2d_FLAIR.nii", "c/FLAIR.nrrd", "d/x_0000.nii.gz", "d/x_0001.nii.gz", "d/seg.nii.gz",
    ]  # fmt: skip
    cases = {case.place: case for case in group_files(map(Path, names), wanted)}
    assert set(cases) == {"a/BraTS_001", "b/sub-1", "b/sub-1_acq-2d", "c", "d/x"}
    shown = {place: [str(part) for part in case.parts.values()] for place, case in cases.items()}
    assert shown["a/BraTS_001"] == names[:2] and cases["a/BraTS_001"].unused == (Path(names[2]),)
    assert shown["c"] == ["c/t1.nrrd", "c/FLAIR.nrrd"] and shown["d/x"] == ["d/x_0000.nii.gz", "d/x_0001.nii.gz"]
    assert cases["b/sub-1"].fault.startswith("lacks the sequence flair (FLAIR; 0001). Its files: b/sub-1_T1.nii")


def test_a_folder_holds_one_case(tmp_path):
    for patient in (1, 2):
        write_patient(tmp_path / str(patient), patient)
    assert not find_sequences(tmp_path / "1", WANTED).fault
    with pytest.raises(PyrasegError, match="holds 2 cases"):
        find_sequences(tmp_path, WANTED)


@pytest.mark.parametrize("sequences", [{}, [], "t1", {"t 1": "T1*"}, [{"t1": "a"}, {"t1": "b"}], {1: "T1"}], ids=repr)
def test_what_are_no_sequences(sequences):
    with pytest.raises(PyrasegError, match="sequence"):
        read_sequences(sequences)
