# SPDX-License-Identifier: Apache-2.0
"""The folder that a package was unpacked in is held to the same sums, and to nothing beside them."""

import json
import re
import shutil
from pathlib import Path

import pytest

from bundle.pyraseg.commands import main
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.packaging.archive import unpack
from bundle.pyraseg.packaging.form import BILL
from bundle.pyraseg.packaging.verification import verify
from tests.helpers.packages import NAME, VERSION, Package, resummed


@pytest.fixture
def folder(package: Package, tmp_path: Path) -> Path:
    """Return the files of the package in a folder of another name, as a hub and git leave it."""
    folder = tmp_path / "chosen"
    unpack(package.files, folder)
    for name in (".gitattributes", ".cache/huggingface/x.lock", ".git/HEAD"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.slow
def test_a_folder_with_the_files_of_a_package(folder, package, capsys):
    assert main(["verify", str(folder), "--key", str(package.public)]) == 0
    said = f"Verified: {NAME} {VERSION}: {len(package.files)} files, signed by {package.public}\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "LICENSE").write_text("mine"), "LICENSE differs from its sum in SHA256SUMS"),
        (lambda f: (f / "torch.py").write_text(""), "torch.py has no sum"),
        (lambda f: (f / "configs" / ".cache").mkdir(), "'configs/.cache', which is no safe path"),
        (lambda f: (f / "README.md").unlink(), "README.md is listed in SHA256SUMS but missing"),
        (lambda f: (f / "more").symlink_to(f / "LICENSE"), "it holds more, which is a link"),
        (lambda f: (f / "more").symlink_to(f), "it holds more, which is a link"),
        (lambda f: (f / "a b").write_text(""), "'a b', which is no safe path of a file"),
        (lambda f: shutil.rmtree(f / "models"), "models/model.pt is listed in SHA256SUMS but missing"),
    ],
)  # fmt: skip
def test_a_folder_that_was_changed(change, said, folder, package):
    change(folder)
    with pytest.raises(PyrasegError, match=re.escape(said)) as told:
        verify(folder, key=package.public)
    assert str(told.value).startswith(f"{folder} is refused: ")


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(PyrasegError, match="it has no SHA256SUMS"):
        verify(tmp_path, unsigned=True)


@pytest.mark.parametrize("name", ["../evil", "a/b", "\x1b[2J", "", None])
def test_a_folder_whose_bill_names_a_place(name, package, tmp_path):
    bill = json.loads(package.files[BILL])
    bill["metadata"]["component"]["name"] = name
    unpack(resummed(package.files, **{BILL: json.dumps(bill).encode()}), tmp_path / "folder")
    with pytest.raises(PyrasegError, match="which no package has" if name is not None else "is no CycloneDX bill"):
        verify(tmp_path / "folder", unsigned=True)
