# SPDX-License-Identifier: Apache-2.0
"""Who may ask a label server: the holder of its token, and no web page from elsewhere."""

import argparse
import base64
import binascii
import hmac
import ipaddress
import socket
import ssl
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bundle.pyraseg.core import PyrasegError

#: The environment variable that holds the token of a server.
TOKEN = "PYRASEG_LABEL_TOKEN"
#: Characters that a token has at least.
LENGTH = 16


@dataclass(frozen=True)
class Access:
    """Hold how a server is reached.

    Attributes:
        url: for people.
        names: by which clients may ask for it, beside addresses.
        token: that they must know, if any.
        certificate: for HTTPS, and the file of its private key, if any.
    """

    url: str
    names: frozenset[str]
    token: str | None
    certificate: tuple[Path, Path] | None

    @classmethod
    def of(cls, options: argparse.Namespace, environment: Mapping[str, str]) -> Self:
        """Read it from the options of the command line.

        Raises:
            PyrasegError: other machines would reach the server without a token or without encryption.
        """
        if environment.get("MONAI_LABEL_AUTH_ENABLE", "").lower() in ("true", "1"):
            raise PyrasegError(
                "MONAI_LABEL_AUTH_ENABLE is set, but the label server does not ask a Keycloak. Unset it, and give a "
                f"token: --token-file or {TOKEN}."
            )
        token = read_token(options.token_file, environment)
        names = {"localhost", socket.gethostname().lower()}
        if (options.certificate is None) != (options.key is None):
            raise PyrasegError("--certificate and --key belong together. Give both or neither.")
        certificate = None
        if options.certificate is not None:
            certificate = (options.certificate.resolve(), options.key.resolve())
            names |= names_in(*certificate)
        if options.behind_proxy is not None:
            names.add(options.behind_proxy.lower())
        if options.behind_proxy is not None or not is_loopback(options.host):
            reached = f"Other machines reach the server (--host {options.host})"
            if token is None:
                raise PyrasegError(f"{reached}. Give a token that clients must know: --token-file FILE, or {TOKEN}.")
            if certificate is None and options.behind_proxy is None:
                raise PyrasegError(
                    f"{reached}, and images and token would travel readable. Give --certificate and --key, or "
                    "--behind-proxy NAME if a proxy of your site encrypts."
                )
        host = socket.gethostname() if options.host in ("0.0.0.0", "::") else options.host
        host = f"[{host}]" if ":" in host else host
        url = f"{'https' if certificate else 'http'}://{host}:{options.port}"
        if options.behind_proxy is not None:
            url = f"https://{options.behind_proxy}"
        return cls(url, frozenset(names), token, certificate)

    def for_uvicorn(self) -> list[str]:
        """Return the options of MONAI Label for HTTPS."""
        if self.certificate is None:
            return []
        certificate, key = map(str, self.certificate)
        return ["--ssl_certfile", certificate, "--ssl_keyfile", key]


def names_in(certificate: Path, key: Path) -> set[str]:
    """Return the names of the server in its certificate.

    Raises:
        PyrasegError: it is none, or the key is not its key, or asks for a password.
    """
    from cryptography import x509  # `pyraseg label --help` has no need of it

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password="")
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:  # an SSLError is an OSError
        raise PyrasegError(
            f"{certificate} and {key} are no certificate in PEM with names of a server (subjectAltName) and its key "
            "without a password. Correct --certificate and --key."
        ) from error
    return {name.lower() for name in names.get_values_for_type(x509.DNSName)}


def read_token(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """Return the token that clients must know, from a file or else the environment, or None where there is none.

    Raises:
        PyrasegError: other users can read the file, or the token is short or not of plain characters.
    """
    if file is None:
        token = environment.get(TOKEN)
        where = TOKEN
    else:
        if not file.is_file():
            raise PyrasegError(f"There is no file {file} with a token. Correct --token-file.")
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise PyrasegError(f"Other users can read the token in {file}. Close it: chmod 600 {file}")
        token = file.read_text(encoding="utf-8").strip()
        where = str(file)
    if token is None:
        return None
    if len(token) < LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise PyrasegError(
            f"The token in {where} is too short or has other characters than letters, digits and signs. Make one of "
            f"{LENGTH} or more, such as by `openssl rand -hex 32`."
        )
    return token


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_known(host: str | None, names: Collection[str]) -> bool:
    """Return whether a name means this server to everyone: an address does, another name is what its owner says.

    Args:
        host: that a client asks for, without port.
        names: of the server; `*.` stands for one part, as in a certificate.
    """
    try:
        ipaddress.ip_address(host or "")
    except ValueError:
        host = (host or "").lower()
        return host in names or f"*.{host.partition('.')[2]}" in names
    return True


def is_from_elsewhere(origin: str | None, host: str) -> bool:
    """Return whether a page of another origin asks."""
    return origin is not None and origin.partition("//")[2] != host


def holds_token(authorization: str | None, token: str) -> bool:
    """Return whether a request has the token: as Bearer, or as the password of Basic, which browsers ask for."""
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() == "basic":
        try:
            value = base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return is_token(value, token)


def is_token(value: str, token: str) -> bool:
    """Compare in a time that tells nothing of the token."""
    return hmac.compare_digest(value.encode(), token.encode())
