# SPDX-License-Identifier: Apache-2.0
"""One package of the dermoscopy task, signed, and what forgers and careless tools make of it."""

import io
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.packaging.archive import read_archive
from bundle.pyraseg.packaging.sums import SIGNATURE, SUMS, sums_text
from bundle.pyraseg.packaging.verification import verify
from bundle.pyraseg_tools.publishing.packing import pack
from tests.helpers.commands import ROOT
from tests.helpers.shared import made_once

VERSION = json.loads((ROOT / "configs" / "metadata.json").read_text())["version"]
NAME = "pyraseg_dermoscopy"
Files = dict[str, bytes]


class Package(NamedTuple):
    """A package and what it was made with."""

    zip: Path
    files: dict[str, bytes]
    private: Path
    public: Path


def write_keys(folder: Path) -> tuple[Path, Path]:
    """Write a new pair of keys as OpenSSL does; return the paths of the private and the public one."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / "private.pem", folder / "public.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Return a package."""

    def make(folder: Path) -> None:
        private, _ = write_keys(folder)
        pack(ROOT, "dermoscopy", folder, key=private)

    folder = made_once(tmp_path_factory, "package", make)
    (path,) = folder.glob("*.zip")
    return Package(path, read_archive(path)[1], folder / "private.pem", folder / "public.pem")


def resummed(files: Files, **changed: bytes | None) -> Files:
    """Return files with others changed, added or (None) left out and new sums, as a forger without the key would."""
    files = {name: content for name, content in {**files, **changed}.items() if content is not None}
    files = {name: content for name, content in files.items() if name not in (SUMS, SIGNATURE)}
    return files | {SUMS: sums_text(files)}


def refused(content: bytes, tmp_path: Path, **options: object) -> str:
    """Return what is said of a zip that is refused."""
    path = tmp_path / "given.zip"
    path.write_bytes(content)
    with pytest.raises(PyrasegError) as error:
        verify(path, **options)
    said = str(error.value)
    assert said.startswith(f"{path} ")
    return said


def rewritten(files: Files, each: Callable[[zipfile.ZipInfo], object], *more: tuple[str, bytes]) -> bytes:
    """Return a zip of files and of more entries, with `each` called on what is written of each."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in [*((f"{NAME}/{name}", files[name]) for name in sorted(files)), *more]:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            each(info)
            archive.writestr(info, content, compress_type=info.compress_type)
    return buffer.getvalue()


def nothing(_: zipfile.ZipInfo) -> None:
    pass
