# SPDX-License-Identifier: Apache-2.0
"""Only a signature by the key that was given says who made a package."""

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.packaging.archive import archive_bytes
from bundle.pyraseg.packaging.sums import SIGNATURE, SUMS, sign
from bundle.pyraseg.packaging.verification import verify
from tests.helpers.packages import NAME, VERSION, refused, resummed, write_keys


@pytest.mark.slow
def test_the_trap_springs_where_its_code_is_trusted(trap, tmp_path):
    """The marks of the tests below are left when something runs, so that their absence says something."""
    files, mark = trap
    refused(archive_bytes(NAME, resummed(files)), tmp_path)
    assert not mark.exists()
    path = tmp_path / "given.zip"
    assert verify(path, unsigned=True).title == f"{NAME} {VERSION}"
    assert mark.exists()


def test_forged_sums_do_not_help(trap, package, tmp_path):
    files, mark = trap
    forged = resummed(files)
    stolen = forged | {SIGNATURE: package.files[SIGNATURE]}
    private, _ = write_keys(tmp_path)
    own = forged | {SIGNATURE: sign(forged[SUMS], private)}
    for content in (stolen, own):
        said = refused(archive_bytes(NAME, content), tmp_path, key=package.public)
        assert "its signature is not by the key that was given" in said and "None of its code was run" in said
    assert "it has no signature" in refused(archive_bytes(NAME, forged), tmp_path, key=package.public)
    assert "nothing says who made it" in refused(archive_bytes(NAME, forged), tmp_path)
    assert not mark.exists()


def test_a_signature_without_a_key_proves_nothing(package, tmp_path):
    said = refused(package.zip.read_bytes(), tmp_path)
    assert f"holds {NAME} {VERSION}, whole and well formed" in said and "It has a signature: give" in said


@pytest.mark.parametrize("kind", ["absent", "private", "rsa", "none"])
def test_a_key_that_is_none(kind, package, tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    key = package.private if kind == "private" else tmp_path / "key.pem"
    if kind == "none":
        key.write_text("no key")
    if kind == "rsa":
        public = generate_private_key(65537, 2048).public_key()
        key.write_bytes(
            public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    said = {"absent": "no key at", "rsa": "another kind"}.get(kind, "is no public key in PEM without a password")
    with pytest.raises(PyrasegError, match=said):
        verify(package.zip, key=key)
