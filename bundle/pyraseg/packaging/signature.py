# SPDX-License-Identifier: Apache-2.0
"""Who made a package: an Ed25519 signature (RFC 8032) over its SHA256SUMS.

Keys are PEM files as OpenSSL writes them. The signature is its 64 bytes and nothing else, so
`openssl pkeyutl -verify -pubin -inkey PUBLIC -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig` checks it too.
"""

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bundle.pyraseg.core import PyrasegError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def sign(message: bytes, key: Path) -> bytes:
    """Return the signature of a message by the private key in a PEM file.

    Raises:
        PyrasegError: there is no such key, it has a password, or `cryptography` is not installed.
    """
    serialization = _cryptography()
    return _key(key, "private", lambda pem: serialization.load_pem_private_key(pem, password=None)).sign(message)


def read_public_key(path: Path) -> "Ed25519PublicKey":
    """Return the public key in a PEM file; the errors are those of `sign`."""
    return _key(path, "public", _cryptography().load_pem_public_key)


def check_signature(message: bytes, signature: bytes, key: "Ed25519PublicKey") -> None:
    """Check the signature of a message with a public key.

    Raises:
        PyrasegError: the signature is not that of this message by this key.
    """
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, message)
    except InvalidSignature as error:
        raise PyrasegError("its signature is not by the key that was given: it is another's, or was changed") from error


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


def _cryptography() -> ModuleType:
    try:
        from cryptography.hazmat.primitives import serialization
    except ModuleNotFoundError as error:
        raise PyrasegError(
            "Signatures need the package cryptography, which is not installed: pip install cryptography."
        ) from error
    return serialization
