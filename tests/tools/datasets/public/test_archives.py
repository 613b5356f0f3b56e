# SPDX-License-Identifier: Apache-2.0
"""Archives of strangers: unpacked, or refused before anything is written."""

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.datasets.public.archives import extract
from tests.helpers.archives import add_link, make_tar, make_zip

PIXELS = np.random.default_rng(0).bytes(2000)
FILES = {"set/images/a.jpg": PIXELS, "set/masks/a_segmentation.png": PIXELS[:500]}


def unpacked(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: make_zip(folder / "a.zip", FILES),
        lambda folder: make_tar(folder / "a.tar", FILES),
        lambda folder: make_tar(folder / "a.tar.gz", FILES, "w:gz"),
    ],
)
def test_unpacks_every_file(make, tmp_path):
    extract(make(tmp_path), tmp_path / "out")
    assert unpacked(tmp_path / "out") == FILES
    assert not (tmp_path / "out/set/images/a.jpg").stat().st_mode & 0o4111  # neither set-uid nor executable


def test_litter_stays_behind(tmp_path):
    litter = {"__MACOSX/set/._a.jpg": b"x", "set/images/._a.jpg": b"x", "set/.DS_Store": b"x"}
    extract(make_zip(tmp_path / "a.zip", {**FILES, **litter}), tmp_path / "out")
    assert unpacked(tmp_path / "out") == FILES


@pytest.mark.parametrize("name", ["../evil", "set/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "set/.."])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names_that_lead_out_are_refused_before_anything_is_written(make, name, tmp_path):
    archive = make(tmp_path / "a", {**FILES, name: b"evil"})
    with pytest.raises(PyrasegError, match="leads out of its folder"):
        extract(archive, tmp_path / "deep" / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind, tmp_path):
    with pytest.raises(PyrasegError, match="set/images/link, which is a link or a device"):
        extract(add_link(make_tar(tmp_path / "a.tar", FILES), kind), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_in_a_zip_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", FILES)
    with zipfile.ZipFile(archive, "a") as file:
        info = zipfile.ZipInfo("set/images/link")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(PyrasegError, match="link, which is a link or encrypted"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["zip", "w:gz"])
def test_a_bomb_is_refused(mode, tmp_path):
    files = {"zeros": bytes(20_000_000)}
    archive = make_zip(tmp_path / "a.zip", files) if mode == "zip" else make_tar(tmp_path / "a.tgz", files, mode)
    with pytest.raises(PyrasegError, match="would grow to 20,000,000 bytes, more than 100 times"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_files_of_one_name_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", "1")
        archive.writestr("a", "2")
    with pytest.raises(PyrasegError, match="two files of one name"):
        extract(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("cut", [100, 1500])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_damaged_archives_are_one_message(make, cut, tmp_path):
    archive = make(tmp_path / "a", FILES)
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(PyrasegError, match=r"cannot be unpacked|neither a zip nor a tar"):
        extract(archive, tmp_path / "out")


def test_a_flipped_bit_is_noticed(tmp_path):
    archive = make_zip(tmp_path / "a.zip", FILES)
    content = bytearray(archive.read_bytes())
    content[1000] ^= 1
    archive.write_bytes(content)
    with pytest.raises(PyrasegError, match="cannot be unpacked"):
        extract(archive, tmp_path / "out")


def test_a_page_in_place_of_an_archive_is_told(tmp_path):
    (tmp_path / "a.zip").write_text("<html>Sign in</html>")
    with pytest.raises(PyrasegError, match="neither a zip nor a tar archive"):
        extract(tmp_path / "a.zip", tmp_path / "out")
