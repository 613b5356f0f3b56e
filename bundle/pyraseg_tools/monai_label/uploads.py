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
    """Refuse a header that takes its voxels from another file: it could be any file that the server can read."""
    with path.open("rb") as file:
        header = file.read(HEADER).lower()
    whole = True
    if path.name.endswith(".nrrd"):
        head, end, _ = header.replace(b"\r", b"").partition(b"\n\n")
        fields = [b"".join(line.partition(b":")[0].split()) for line in head.splitlines()]
        whole = bool(end) and b"datafile" not in fields
    elif path.name.endswith(".mha"):  # the first mention must be the line that ends the header
        before, _, after = header.partition(b"elementdatafile")
        begins = not before.rpartition(b"\n")[2].strip(b" \t")
        whole = begins and re.match(rb"[ \t]*[=:][ \t]*local[ \t]*\r?\n", after) is not None
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
