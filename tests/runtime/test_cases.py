# SPDX-License-Identifier: Apache-2.0
"""Inputs of a model of several sequences: a case is one input, and what is no case is named."""

import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.runtime import find_inputs
from tests.helpers.sequence_study import SEQUENCES, write_patient


def write_volumes(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.eye(4)), folder / name)


def test_a_study_is_an_input_named_as_its_first_sequence(tmp_path):
    write_patient(tmp_path / "a", 1)
    write_patient(tmp_path / "b", 2, flair=False)
    complete, fault = find_inputs(tmp_path, sequences=SEQUENCES)
    assert complete["name"] == "a/t1" and fault["name"] == "b/t1"
    parts = pickle.loads(pickle.dumps(complete["image"])).parts
    assert {name: Path(files[0]).parent.name for name, files in parts.items()} == {"t1": "t1", "flair": "flair"}
    assert parts["flair"][0].header.SeriesDescription == "Sag FLAIR fs"  # nothing opens the files for that again
    assert fault["fault"].startswith("lacks the sequence flair (*FLAIR*)") and str(tmp_path / "b") in fault["fault"]
    _, alone = find_inputs(tmp_path, sequences=SEQUENCES, allow_missing=True)
    assert alone["image"].parts["flair"] is None


def test_files_of_a_case_are_one_input(tmp_path, caplog):
    caplog.set_level("INFO")
    write_volumes(tmp_path, "x_t1.nii.gz", "x_flair.nii.gz", "x_seg.nii.gz", "notes.nii.gz")
    (item,) = find_inputs(tmp_path, sequences=["t1", "flair"])
    assert item["name"] == "x_t1"
    assert item["image"].parts == {name: str(tmp_path / f"x_{name}.nii.gz") for name in ("t1", "flair")}
    assert "2 no sequence of the model (notes.nii.gz, x_seg.nii.gz)" in caplog.text


def test_a_folder_without_any_sequence_is_refused(tmp_path):
    write_volumes(tmp_path, "x_ct.nii.gz", "y_ct.nii.gz")
    with pytest.raises(PyrasegError, match=r"has 2 images, such as .*x_ct\.nii\.gz, and none is a sequence"):
        find_inputs(tmp_path, sequences=["t1", "flair"])
