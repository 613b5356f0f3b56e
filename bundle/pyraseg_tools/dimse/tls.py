# SPDX-License-Identifier: Apache-2.0
"""Secure transport (PS3.15 B): certificates from files, at both ends where an authority is named."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from bundle.pyraseg.core import PyrasegError

#: The secure transport connection profiles of PS3.15 B.9 and later refuse older ones.
LEAST_VERSION = ssl.TLSVersion.TLSv1_2


@dataclass(frozen=True)
class TlsFiles:
    """Hold what proves who we are, and whom we trust; all of it PEM files.

    Attributes:
        certificate, key: shown to peers, whether they call or are called.
        authority: who signed the certificates of peers. With it, a peer that calls without such a certificate is
            refused; without it, whoever calls is let in, and whom we call needs a certificate of a public authority.
    """

    certificate: Path
    key: Path
    authority: Path | None = None

    def for_callers(self) -> ssl.SSLContext:
        """Return what a listener needs.

        Raises:
            PyrasegError: a file is missing, or is not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(context)
        if self.authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def for_calling(self) -> ssl.SSLContext:
        """Return what a caller needs; the certificate and the host's name in it are always checked.

        Raises:
            PyrasegError: a file is missing, or is not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._load(context)
        if self.authority is None:
            context.load_default_certs()
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        context.minimum_version = LEAST_VERSION
        try:
            context.load_cert_chain(self.certificate, self.key, password=_refuse_password)
            if self.authority is not None:
                context.load_verify_locations(self.authority)
        except OSError as error:  # ssl.SSLError is one, too
            names = ", ".join(str(path) for path in (self.certificate, self.key, self.authority) if path is not None)
            raise PyrasegError(
                f"The files of TLS ({names}) cannot be used: {error.strerror or type(error).__name__}. Give PEM files: "
                "the certificate, the key that belongs to it, without a password, and the authority of the peers."
            ) from error


def _refuse_password() -> str:
    raise PyrasegError("The key of TLS has a password, and a service asks nobody. Give a key without one.")
