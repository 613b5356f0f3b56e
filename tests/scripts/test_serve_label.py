# SPDX-License-Identifier: Apache-2.0
"""What a label server finds when it starts."""

import stat
from pathlib import Path

from scripts.serve_label import emptied, environment


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


def test_uploads_and_sessions_go_into_the_folder_that_is_emptied(tmp_path):
    variables = environment([Path("elsewhere")], tmp_path)
    folder = emptied(tmp_path)
    assert Path(variables["TMPDIR"]) == folder
    assert Path(variables["MONAI_LABEL_SESSION_PATH"]).is_relative_to(folder)
