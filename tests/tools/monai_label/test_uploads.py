# SPDX-License-Identifier: Apache-2.0
"""What clients send is kept under names of the server, and never unpacked."""

import io
import zipfile

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.monai_label.uploads import SESSIONS, Sessions, keep_upload

SUFFIXES = [".nii.gz", ".nii", ".nrrd", ".png"]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("ct.nii.gz", ".nii.gz"), ("CT.1.2.NII", ".nii"), ("../../up.png", ".png"), ("a\0b/..\\c.nrrd", ".nrrd")],
)
def test_of_the_name_the_suffix_alone_counts(name, suffix, tmp_path):
    path = keep_upload(io.BytesIO(b"voxels"), name, SUFFIXES, tmp_path)
    assert path.parent == tmp_path and path.name == f"{path.name[:32]}{suffix}" and path.name[:32].isalnum()
    assert path.read_bytes() == b"voxels" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["", "ct", "ct.zip", "ct.nii.gz.zip", "module.py", ".png/x", "ct.tar.gz", "ct.png\0"])
def test_other_formats_are_refused_and_leave_nothing(name, tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("../up.txt", "x")
    with pytest.raises(PyrasegError, match=r"is none of \.nii, \.nii\.gz, \.nrrd, \.png\. Send one of them\."):
        keep_upload(content, name, SUFFIXES, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_header_whose_voxels_are_elsewhere_is_refused_and_leaves_nothing(tmp_path):
    header = b"NRRD0004\ntype: short\ndimension: 1\nsizes: 4\nencoding: raw\ndata file: /etc/hostname\n\n"
    with pytest.raises(PyrasegError, match="header without voxels"):
        keep_upload(io.BytesIO(header), "a.nrrd", SUFFIXES, tmp_path)
    assert not list(tmp_path.iterdir())


def test_sessions_hold_some_images_and_the_oldest_goes(tmp_path):
    sessions, ids = Sessions(), []
    for index in range(SESSIONS + 1):
        ids.append(sessions.add(keep_upload(io.BytesIO(b"%d" % index), "a.png", SUFFIXES, tmp_path)))
    assert len(set(ids)) == len(ids) and len(list(tmp_path.iterdir())) == SESSIONS
    assert sessions.image(ids[-1]).read_bytes() == b"%d" % SESSIONS
    sessions.remove(ids[-1])
    for lost in (ids[0], ids[-1], "..", "../..", str(tmp_path), ""):
        for ask in (sessions.image, sessions.remove):
            with pytest.raises(PyrasegError, match="no such session"):
                ask(lost)
    assert len(list(tmp_path.iterdir())) == SESSIONS - 1
