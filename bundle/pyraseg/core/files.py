# SPDX-License-Identifier: Apache-2.0
"""Files that are either whole or absent."""

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from bundle.pyraseg.core.errors import DiskError, PyrasegError


@contextmanager
def replacing(path: str | Path) -> Generator[Path]:
    """Yield a temporary path beside `path` to write a file or fill a folder at; rename it to `path` at the end.

    A reader of `path` sees the old content or the new, whole one. When the block raises, or the process dies, `path` is
    as before. A file at `path` is replaced; a folder there must be empty or absent. Parents are made.

    Raises:
        DiskError: the disk is full, read-only or not ours to write on.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "results", "figures.csv")
    ...     with replacing(path) as temporary:
    ...         _ = temporary.write_text("Dice,0.9")
    ...         path.exists()
    ...     path.read_text()
    False
    'Dice,0.9'
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"The folder {path.parent} cannot be made: {error.strerror}. Choose another.") from error
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # or a power cut may leave the new name with no content
        temporary.replace(path)
    except PyrasegError:
        raise
    except Exception as error:
        _require_room(path.parent, error)
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def _require_room(folder: Path, error: Exception) -> None:
    """Raise DiskError if the disk takes no more, which then is the reason of `error`.

    Asked of the disk, because writers in C and C++ do not tell: PyTorch speaks of an "unexpected pos", NumPy of bytes
    "requested and written". What was written so far still lies there, so that a full disk is still full.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**20))
            file.flush()
    except OSError as refused:
        free = shutil.disk_usage(folder).free / 2**20
        raise DiskError(
            f"Nothing can be written to {folder}: {refused.strerror} ({free:.0f} MB are free). What was there is as it "
            "was. Make room, or choose another folder."
        ) from error


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    """Return a hash of a file's content, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
