# SPDX-License-Identifier: Apache-2.0
"""Files that clients send to a label server: kept under names of ours, and never unpacked."""

import re
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from bundle.pyraseg.core import PyrasegError

#: Bytes within which the header of an image ends.
HEADER = 2**20
#: How many images of clients are kept; the oldest makes room for a new one.
SESSIONS = 16


def keep_upload(content: BinaryIO, name: str, suffixes: Sequence[str], folder: Path) -> Path:
    """Write what a client sent to a new file and return its path.

    Args:
        content: what it sent.
        name: that the client has for it, of which the suffix alone counts.
        suffixes: that are taken.
        folder: where the file is put.

    Raises:
        PyrasegError: it is of another format, or a header whose voxels are in another file.
    """
    known = sorted(suffixes, key=len, reverse=True)
    suffix = next((one for one in known if name.lower().endswith(one)), None)
    if suffix is None:
        raise PyrasegError(f"The file that was sent is none of {', '.join(sorted(suffixes))}. Send one of them.")
    path = folder / f"{uuid.uuid4().hex}{suffix}"
    try:
        with path.open("xb") as file:
            shutil.copyfileobj(content, file)
        _require_voxels(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _require_voxels(path: Path) -> None:
    """Refuse a header that takes its voxels from another file: it could be any file that the server can read.

    Fields are not told apart for that: what could be taken for one by other rules of lines and names would get past.
    """
    whole = True
    if path.suffix in (".nrrd", ".nhdr"):
        with path.open("rb") as file:
            header = re.match(rb"(?s)NRRD.*?(?:\n\n|\r\n\r\n)", file.read(HEADER))
        whole = header is not None and re.search(rb"(?i)data\s*file\s*:", header[0]) is None
    elif path.suffix in (".mha", ".mhd"):  # no mention may name another file, and one that counts can lie behind others
        mentions = re.findall(rb"ElementDataFile(\s*[=:]\s*(?:LOCAL|Local|local)[ \t]*\r?\n)?", path.read_bytes())
        whole = bool(mentions) and all(mentions)
    if not whole:
        raise PyrasegError("The file has no header and voxels of its own. Send one file that holds both.")


class Sessions:
    """Images that clients upload for inferences of their own, each under an identity that nobody can guess."""

    def __init__(self) -> None:
        self._files: dict[str, Path] = {}

    def add(self, path: Path) -> str:
        """Keep an upload; return the identity of its session."""
        while len(self._files) >= SESSIONS:
            self.remove(next(iter(self._files)))
        session = uuid.uuid4().hex
        self._files[session] = path
        return session

    def image(self, session: str) -> Path:
        """Return the image of a session.

        Raises:
            PyrasegError: there is no such session.
        """
        if session not in self._files:
            raise PyrasegError("There is no such session. Upload the image again.")
        return self._files[session]

    def remove(self, session: str) -> None:
        self.image(session).unlink(missing_ok=True)
        del self._files[session]
