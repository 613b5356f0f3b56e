# SPDX-License-Identifier: Apache-2.0
"""What clients send is kept under names of the server, and never unpacked."""

import io
import zipfile

import itk
import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.monai_label.uploads import SESSIONS, Sessions, keep_upload

SUFFIXES = [".nii.gz", ".nii", ".nrrd", ".png"]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("ct.nii.gz", ".nii.gz"), ("CT.1.2.NII", ".nii"), ("../../up.png", ".png"), ("a\0b/..\\c.nii", ".nii")],
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


NRRD = "NRRD0004\n{}type: uint8\ndimension: 3\nsizes: 8 6 5\nencoding: raw\n{}\n\n"
META = "{}NDims = 3\nDimSize = 8 6 5\nElementType = MET_UCHAR\n{}\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.nrrd", NRRD.format("", "data file: SECRET")),
        ("a.nrrd", NRRD.format("", "DataFile: SECRET")),
        ("a.nrrd", NRRD.format("", "data file: LIST\nSECRET")),
        ("a.nrrd", NRRD.format("", "data file: SECRET").replace("\n", "\r\n")),
        ("a.nrrd", NRRD.format(f"# {'x' * 98}\n" * 20000, "data file: SECRET")),
        ("a.nrrd", NRRD.format("", "").rstrip()),
        ("a.mha", META.format("", "ElementDataFile = SECRET")),
        ("a.mha", META.format("", "ElementDataFile: SECRET")),
        ("a.mha", META.format("", "ElementDataFile=SECRET")),
        ("a.mha", META.format("", "  elementDataFile = SECRET")),
        ("a.mha", META.format("", "ElementDataFile = LIST\nSECRET")),
        ("a.mha", META.format("", "ElementDataFile = localSECRET")),
        ("a.mha", META.format("", "ElementDataFile = local SECRET")),
        ("a.mha", META.format("Comment = a\n\n", "ElementDataFile = SECRET")),
        ("a.mha", META.format("Comment = ElementDataFile = LOCAL\n", "ElementDataFile = SECRET")),
        ("a.mha", META.format(f"Comment = {'x' * 90}\n" * 20000, "ElementDataFile = SECRET")),
        ("a.mha", META.format("", "")),
        # ITK minds letters, takes a line without a sign for a part of the next name, and ends lines of NRRD at \r
        ("a.mha", META.format("elementdatafile = LOCAL\n", "ElementDataFile = SECRET")),
        ("a.mha", META.format("a\nElementDataFile = LOCAL\n", "ElementDataFile = SECRET")),
        ("a.nrrd", NRRD.format("# a\rdata file: SECRET\n", "")),
        ("a.seg.nrrd", NRRD.format("# a\rdatafile: SECRET\n", "")),
        ("a.mhd", META.format("", "ElementDataFile = SECRET")),
        ("a.nhdr", NRRD.format("", "data file: SECRET")),
    ],
)
def test_a_header_whose_voxels_are_elsewhere_is_refused_and_leaves_nothing(name, text, tmp_path):
    secret, folder = tmp_path / "secret", tmp_path / "uploads"
    secret.write_bytes(bytes(range(240)))
    folder.mkdir()
    with pytest.raises(PyrasegError, match="no header and voxels of its own"):
        keep_upload(
            io.BytesIO(text.replace("SECRET", str(secret)).encode()), name, [*SUFFIXES, ".mha", ".mhd", ".nhdr"], folder
        )
    assert not list(folder.iterdir())


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz", ".nii", ".png"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_whole_file_is_kept_as_it_is(suffix, compressed, tmp_path):
    image = itk.image_from_array(np.random.default_rng(1).integers(0, 9, (6, 8), np.uint8))
    itk.imwrite(image, tmp_path / f"sent{suffix}", compression=compressed)
    with (tmp_path / f"sent{suffix}").open("rb") as content:
        kept = keep_upload(content, f"sent{suffix}", [*SUFFIXES, ".mha"], tmp_path)
    np.testing.assert_array_equal(itk.imread(kept), itk.imread(tmp_path / f"sent{suffix}"))


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
