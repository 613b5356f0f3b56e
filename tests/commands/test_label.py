# SPDX-License-Identifier: Apache-2.0
"""What a label server finds when it starts."""

import stat
from pathlib import Path

import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.commands.label import emptied, environment, look_at_folder, told_version
from bundle.pyraseg_tools.monai_label import TOKEN
from tests.helpers import dicom_files as files


def test_what_a_killed_server_left_is_removed_and_nothing_else(tmp_path):
    left = tmp_path / "dicom" / "1.2" / ".1.2.series.0f.tmp" / "000000.dcm"
    whole = tmp_path / "dicom" / "1.2" / "1.2.series" / "000000.dcm"
    upload = tmp_path / "temporary" / "sessions" / "patient.nii.gz"
    for file in (left, whole, upload):
        file.parent.mkdir(parents=True)
        file.touch()
    folder = emptied(tmp_path)
    assert whole.exists() and not left.parent.exists()
    assert not list(folder.iterdir())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_uploads_go_into_the_folder_that_is_emptied_and_no_module_is_looked_for_there(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_LABEL_SESSIONS", "true")
    variables = environment([Path("elsewhere")], tmp_path, None)
    assert Path(variables["TMPDIR"]) == emptied(tmp_path)
    assert not any(Path(part).is_relative_to(tmp_path) for part in variables["PYTHONPATH"].split(":"))
    assert (variables["PYTHONSAFEPATH"], variables["MONAI_LABEL_SESSIONS"]) == ("1", "false")
    assert TOKEN not in variables and environment([], tmp_path, "token")[TOKEN] == "token"


@pytest.mark.parametrize(
    ("version", "closed"), [("0.8.5", False), ("0.8.7", False), ("0.8.8", True), ("0.9.0rc1", True)]
)
def test_the_version_that_runs_is_told_and_what_it_lacks(version, closed):
    told = told_version(version)
    assert version in told and ("published security holes" in told) == (not closed)


def test_a_pattern_tells_the_patients_of_files_and_of_nothing_else(tmp_path, capsys):
    for name in ("anna_a.jpg", "anna_b.jpg", "bert_a.nii.gz"):
        (tmp_path / name).touch()
    assert look_at_folder(tmp_path, "^(.+)_[ab]$") == {"dicom": "false", "patient_pattern": "^(.+)_[ab]$"}
    assert "3 images of 2 patients" in capsys.readouterr().out
    with pytest.raises(PyrasegError, match="finds no patient in the names of 1 cases, such as bert_a"):
        look_at_folder(tmp_path, "^(anna)")
    files.write_series(tmp_path / "series", np.zeros((2, 4, 4), np.int16))
    with pytest.raises(PyrasegError, match="DICOM series are grouped by Patient ID"):
        look_at_folder(tmp_path / "series", "^(.+)_[ab]$")
    assert look_at_folder(tmp_path / "series") == {"dicom": "true"}
    with pytest.raises(PyrasegError, match=r"--series 'portal;9' means none of the series in .*series: .*CT, "):
        look_at_folder(tmp_path / "series", series="portal; 9")


def test_a_folder_without_images_is_told(tmp_path):
    with pytest.raises(PyrasegError, match="holds no image"):
        look_at_folder(tmp_path)
    with pytest.raises(PyrasegError, match="There is no folder"):
        look_at_folder(tmp_path / "elsewhere")
