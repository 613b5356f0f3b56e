# SPDX-License-Identifier: Apache-2.0
"""A package whose files are not those of its sums is refused, down to a bit."""

import pytest

from bundle.pyraseg.packaging.archive import archive_bytes
from bundle.pyraseg.packaging.sums import SUMS
from tests.helpers.packages import NAME, Files, refused, resummed


@pytest.mark.parametrize("where", ["models/model.pt", "configs/train.json", "SHA256SUMS", "SHA256SUMS.sig"])
def test_one_bit(where, package, tmp_path):
    content = bytearray(package.zip.read_bytes())
    content[content.index(package.files[where]) + 60] ^= 1
    said = refused(bytes(content), tmp_path, key=package.public)
    assert "no complete zip: Bad CRC-32" in said  # the zip's own sum, which needs no forger to be wrong
    changed = dict(package.files)
    changed[where] = changed[where][:60] + bytes([changed[where][60] ^ 1]) + changed[where][61:]
    said = refused(archive_bytes(NAME, changed), tmp_path, key=package.public)
    expected = {"SHA256SUMS": "differs from its sum", "SHA256SUMS.sig": "its signature is not by"}
    assert expected.get(where, f"{where} differs from its sum in SHA256SUMS") in said


def change(files: Files, kind: str) -> Files:
    files = dict(files)
    if kind == "swapped":
        files["configs/train.json"] = files["configs/inference.json"]
    elif kind == "added":
        files["bundle/pyraseg/more.py"] = b""
    elif kind == "added beside":
        files["sitecustomize.py"] = b""
    elif kind == "missing":
        del files["configs/evaluate.json"]
    elif kind == "no sums":
        del files[SUMS]
    elif kind == "malformed":
        files[SUMS] += b"not a sum\n"
    elif kind == "twice":
        files[SUMS] += files[SUMS].splitlines(keepends=True)[0]
    return files


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("swapped", "configs/train.json differs from its sum in SHA256SUMS"),
        ("added", "bundle/pyraseg/more.py has no sum"),
        ("added beside", "sitecustomize.py has no sum"),
        ("missing", "configs/evaluate.json is listed in SHA256SUMS but missing"),
        ("no sums", "it has no SHA256SUMS"),
        ("malformed", "of its SHA256SUMS is malformed"),
        ("twice", "of its SHA256SUMS is malformed"),
    ],
)
def test_files_that_are_not_those_of_the_sums(kind, said, trap, tmp_path):
    files, mark = trap
    files = resummed(files)
    assert said in refused(archive_bytes(NAME, change(files, kind)), tmp_path, unsigned=True)
    assert not mark.exists()
