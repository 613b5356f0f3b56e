# SPDX-License-Identifier: Apache-2.0
"""Names of application entities and where they are."""

import re
from dataclasses import dataclass

from bundle.pyraseg.core import PyrasegError

#: Printable ASCII without the backslash (value representation AE, PS3.5 6.2).
_TITLE = re.compile(r"[ -\[\]-~]{1,16}")


@dataclass(frozen=True)
class Peer:
    """Name a DICOM node: its AE title, its host and its port."""

    title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.title}@{self.host}:{self.port}"


def ae_title(text: str) -> str:
    """Return an AE title without the spaces around it, which mean nothing.

    Raises:
        PyrasegError: it is none.

    >>> ae_title(" CT1 ")
    'CT1'
    """
    title = text.strip(" ")
    if not title or not _TITLE.fullmatch(title):
        raise PyrasegError(f"{text!r} is no AE title. It has 1 to 16 characters of ASCII, and no backslash.")
    return title


def parse_peer(text: str) -> Peer:
    """Return the node that a text names as TITLE@HOST:PORT.

    Raises:
        PyrasegError: it names none.

    >>> parse_peer("PACS@pacs.example.org:104")
    Peer(title='PACS', host='pacs.example.org', port=104)
    >>> parse_peer("PACS@[::1]:104").host
    '::1'
    """
    title, at, address = text.rpartition("@")
    host, colon, port = address.rpartition(":")
    if not (at and colon and host.strip("[]") and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise PyrasegError(f"{text!r} names no DICOM node. Write TITLE@HOST:PORT, such as PACS@pacs.example.org:104.")
    return Peer(ae_title(title), host.strip("[]"), int(port))
