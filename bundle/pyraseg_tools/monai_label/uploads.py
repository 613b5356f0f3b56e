# SPDX-License-Identifier: Apache-2.0
"""Files that clients send to a label server: kept under names of ours, and never unpacked."""

import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.monai_label.series_files import refuse_reference

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
        refuse_reference(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


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
