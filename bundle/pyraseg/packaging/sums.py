# SPDX-License-Identifier: Apache-2.0
"""What each file of a package must be, as coreutils' `sha256sum` writes it, and who made it: a signature of the sums.

The signature is Ed25519 (RFC 8032), its 64 bytes and nothing else; keys are PEM files as OpenSSL writes them. So
`openssl pkeyutl -verify -pubin -inkey PUBLIC -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig` checks it too.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.pyraseg.core import PyrasegError, require

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"


def sums_text(files: Mapping[str, bytes]) -> bytes:
    """Return the sums of files by path, in the order of their names.

    >>> print(sums_text({"b": b"2", "a": b"1"}).decode(), end="")
    6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b  a
    d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35  b
    """
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    return "".join(lines).encode()


def check_sums(files: Mapping[str, bytes]) -> None:
    """Check every file of a package against its SHA256SUMS; only that file and its signature have no sum.

    Raises:
        PyrasegError: there are no sums, they are malformed, or a file has another sum, has none, or is missing.
    """
    if SUMS not in files:
        raise PyrasegError(f"it has no {SUMS}, so damage cannot be excluded")
    expected: dict[str, str] = {}
    for number, line in enumerate(files[SUMS].decode("utf-8", "replace").splitlines(), start=1):
        match = re.fullmatch(r"([0-9a-f]{64})  (\S+)", line)
        if match is None or match[2] in expected or match[2] in (SUMS, SIGNATURE):
            raise PyrasegError(f"line {number} of its {SUMS} is malformed")
        expected[match[2]] = match[1]
    present = {name: content for name, content in files.items() if name not in (SUMS, SIGNATURE)}
    for name in sorted(present.keys() | expected.keys()):
        if name not in expected:
            raise PyrasegError(f"{name} has no sum in {SUMS}: it was added after the package was made")
        if name not in present:
            raise PyrasegError(f"{name} is listed in {SUMS} but missing")
        if hashlib.sha256(present[name]).hexdigest() != expected[name]:
            raise PyrasegError(f"{name} differs from its sum in {SUMS}: it was changed or damaged")


def sign(message: bytes, key: Path) -> bytes:
    """Return the signature of a message by the private key in a PEM file.

    Raises:
        PyrasegError: there is no such key, it has a password, or `cryptography` is not installed.
    """
    serialization = require("cryptography.hazmat.primitives.serialization")
    return _key(key, "private", lambda pem: serialization.load_pem_private_key(pem, password=None)).sign(message)


def read_public_key(path: Path) -> "Ed25519PublicKey":
    """Return the public key in a PEM file; the errors are those of `sign`."""
    return _key(path, "public", require("cryptography.hazmat.primitives.serialization").load_pem_public_key)


def check_signature(message: bytes, signature: bytes, key: "Ed25519PublicKey") -> None:
    """Check the signature of a message with a public key.

    Raises:
        PyrasegError: the signature is not that of this message by this key.
    """
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, message)
    except InvalidSignature as error:
        raise PyrasegError(
            "its signature is not by the key that was given: it is from another key, or the package was changed"
        ) from error


def _key(path: Path, kind: str, load: Any) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    if not path.is_file():
        raise PyrasegError(f"There is no key at {path}. Give the PEM file of an Ed25519 {kind} key.")
    try:
        key = load(path.read_bytes())
    except (ValueError, TypeError) as error:  # TypeError: a password is needed
        raise PyrasegError(f"{path} is no {kind} key in PEM without a password: {error}.") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        raise PyrasegError(f"{path} holds a key of another kind. Give an Ed25519 {kind} key.")
    return key
