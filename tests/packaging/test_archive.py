# SPDX-License-Identifier: Apache-2.0
"""A zip that holds anything but the plain files of a package is refused before it is unpacked."""

import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.packaging.archive import MOST_FILES, archive_bytes, read_archive
from tests.helpers.packages import NAME, nothing, refused, rewritten


def test_the_form_of_a_package_is_that_of_a_plain_zip(package):
    assert rewritten(package.files, nothing) == package.zip.read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        f"{NAME}/../../evil.py", "/etc/evil", "../evil", f"{NAME}\\..\\evil", "C:/evil", f"{NAME}//evil",
        f"{NAME}/./evil", f"{NAME}/a\0.py", f"{NAME}/nul.", f"{NAME}/.hidden", f"{NAME}/folder/",
        f"{NAME}/caf\u00e9", f"{NAME}/a b",
    ],
)  # fmt: skip
def test_paths_that_are_not_safe(path, trap, tmp_path):
    files, mark = trap
    sound = (
        f"{NAME}/{'x' * (len(path.encode()) - len(NAME) - 1)}"
        if len(path.encode()) > len(NAME) + 1
        else "x" * len(path)
    )
    content = rewritten(files, nothing, (sound, b"")).replace(sound.encode(), path.encode())
    if not path.isascii():  # what says that a name is in UTF-8
        content = rewritten(files, nothing, (path, b""))
    assert "which is no safe path of a file" in refused(content, tmp_path, unsigned=True)
    assert not mark.exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices(kind, package, tmp_path):
    def as_link(info: zipfile.ZipInfo) -> None:
        if info.filename.endswith("evil"):
            info.external_attr = (kind | 0o777) << 16

    content = rewritten(package.files, as_link, (f"{NAME}/evil", b"/etc/passwd"))
    assert f"{NAME}/evil, which is a link or a device" in refused(content, tmp_path, unsigned=True)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["LICENSE", "license"])
def test_two_files_of_one_name(name, package, tmp_path):
    content = rewritten(package.files, nothing, (f"{NAME}/{name}", b""))
    assert "twice, which is ambiguous" in refused(content, tmp_path, unsigned=True)


def bomb(path: Path, size: int) -> None:
    """Write a zip of one file of zeros, which grows a thousandfold."""
    compress = zlib.compressobj(9, zlib.DEFLATED, -15)
    part = 1 << 26
    block = compress.compress(bytes(part)) + compress.flush(zlib.Z_FULL_FLUSH)  # stands alone, so it may repeat
    data = block * (size // part) + compress.flush()
    name, sizes = f"{NAME}/zeros".encode(), struct.pack("<2HQQ", 1, 16, size, len(data))
    fields = struct.pack("<5H3L2H", 45, 0, 8, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(name), len(sizes))
    local = b"PK\3\4" + fields + name + sizes
    entry = b"PK\1\2" + struct.pack("<H", 45) + fields + struct.pack("<3H2L", 0, 0, 0, 0o644 << 16, 0) + name + sizes
    end = b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 1, 1, len(entry), len(local + data), 0)
    path.write_bytes(local + data + entry + end)


def test_a_bomb_of_ten_gigabytes(tmp_path):
    path = tmp_path / "bomb.zip"
    bomb(path, 10 << 30)
    assert path.stat().st_size < 12e6
    with zipfile.ZipFile(path) as archive, archive.open(f"{NAME}/zeros") as file:  # it is one: others would unpack it
        assert file.read(1 << 20) == bytes(1 << 20)
    assert "to 10,737,418,240 bytes; a package is not compressed" in refused(path.read_bytes(), tmp_path, unsigned=True)


def test_too_many_files(tmp_path):
    content = rewritten({f"f{index}": b"" for index in range(MOST_FILES + 1)}, nothing)
    assert f"it holds {MOST_FILES + 1:,} files" in refused(content, tmp_path)


def test_more_files_than_its_end_tells_of(package, tmp_path):
    content = bytearray(rewritten({f"f{index}": b"" for index in range(200)}, nothing))
    content[-14:-10] = struct.pack("<2H", 1, 1)
    assert "holds 1 files, in a list of" in refused(bytes(content), tmp_path)


def test_compressed_again(package, tmp_path):
    def deflate(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_DEFLATED

    assert "a package is not compressed" in refused(rewritten(package.files, deflate), tmp_path, key=package.public)


@pytest.mark.parametrize("kind", ["before", "behind", "comment", "between", "date", "second folder", "cut", "text"])
def test_anything_but_its_files(kind, package, tmp_path):
    content = package.zip.read_bytes()
    if kind == "before":
        content = b"#!/bin/sh\nrm -rf ~\n" + content
    elif kind == "behind":
        content += b"more"
    elif kind == "comment":
        content = content[:-2] + struct.pack("<H", 4) + b"more"
    elif kind == "between":  # an entry that no list of files names, but that a reader from the front unpacks
        start = content.index(b"PK\1\2" + bytes([20, 3]))
        hidden = archive_bytes(NAME, {"evil.py": b"print()"})
        hidden = hidden[: hidden.index(b"PK\1\2")]
        offset = struct.pack("<L", start + len(hidden))
        content = content[:start] + hidden + content[start:-6] + offset + content[-2:]
    elif kind == "date":
        content = rewritten(package.files, lambda info: setattr(info, "date_time", (2020, 1, 1, 0, 0, 0)))
    elif kind == "second folder":
        content = rewritten(package.files, nothing, ("other/file", b""))
    elif kind == "cut":
        content = content[: len(content) // 2]
    elif kind == "text":
        content = b"<html>404</html>"
    said = refused(content, tmp_path, key=package.public)
    assert any(words in said for words in ("it has bytes between", "it is no complete zip", "lies outside its folder"))


def test_every_bit_of_a_zip_counts(tmp_path):
    content, path = archive_bytes("p", {"a": b"xy", "b/c": b"z"}), tmp_path / "given.zip"
    path.write_bytes(content)
    assert read_archive(path) == ("p", {"a": b"xy", "b/c": b"z"})
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(PyrasegError):
            read_archive(path)


def test_reading_leaves_nothing_on_the_disk(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(package.zip, tmp_path / "given.zip")
    read_archive(tmp_path / "given.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["given.zip"]
