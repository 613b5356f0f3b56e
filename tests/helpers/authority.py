# SPDX-License-Identifier: Apache-2.0
"""A certificate authority of a hospital, made by openssl, and certificates of its nodes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bundle.pyraseg_tools.dimse import TlsFiles


def authority(folder: Path) -> tuple[Path, Path]:
    """Write an authority, and return the files of its certificate and key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; it makes the certificates")
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "authority.pem", folder / "authority.key"
    _openssl("req", "-x509", *_NEW, "-subj", "/CN=Hospital", "-keyout", key, "-out", certificate)
    return certificate, key


def signed(folder: Path, name: str, by: tuple[Path, Path]) -> TlsFiles:
    """Write a certificate for localhost that an authority has signed, and return what a node needs."""
    request, certificate, key = (folder / f"{name}{suffix}" for suffix in (".csr", ".pem", ".key"))
    names = folder / "names.txt"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    _openssl("req", *_NEW[:3], "-subj", f"/CN={name}", "-keyout", key, "-out", request)
    signing = ("-CA", by[0], "-CAkey", by[1], "-CAcreateserial", "-days", "2", "-extfile", names)
    _openssl("x509", "-req", "-in", request, *signing, "-out", certificate)
    return TlsFiles(certificate, key, by[0])


_NEW = ("-newkey", "rsa:2048", "-nodes", "-days", "2")


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
