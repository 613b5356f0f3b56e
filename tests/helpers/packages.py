# SPDX-License-Identifier: Apache-2.0
"""One package of the dermoscopy task, signed, for every test here."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bundle.pyraseg.packaging.archive import read_archive
from bundle.pyraseg_tools.publishing.packing import pack
from tests.helpers.commands import ROOT

VERSION = json.loads((ROOT / "configs" / "metadata.json").read_text())["version"]


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
    folder = tmp_path_factory.mktemp("package")
    private, public = write_keys(folder)
    path = pack(ROOT, "dermoscopy", folder, key=private)
    return Package(path, read_archive(path)[1], private, public)
