# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all, tables among them, and never over an input; their hashes."""

import csv
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bundle.pyraseg.core.errors import DiskError, PyrasegError

#: What the open run reads and must not replace: paths by the device and the number of the file or folder on it, which
#: are the same whatever a path looks like (links, "..", capitals on a disk that ignores them); None outside a run.
_protected: dict[tuple[int, int], str] | None = None
#: Whether the open run is a block of `protecting_inputs`, which alone ends it.
_in_block = False
#: Characters of a name that its temporary one repeats: in UTF-8 up to four bytes each, and a disk takes 255.
_REPEATED = 50


def protect(paths: Iterable[str | Path]) -> None:
    """Protect inputs: `replacing` refuses these files, and the files in these folders, in the run that is open.

    A program opens one by `begin_run` or `protecting_inputs`. Where none is open, as in a notebook that calls functions
    one by one, what one call reads may be what the next is to write, and nothing is protected.
    """
    if _protected is None:
        return
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:  # whoever reads it says that it is not there
            continue
        _protected[status.st_dev, status.st_ino] = os.path.abspath(path)


def begin_run() -> None:
    """Begin a run of a program: nothing is protected yet. It lasts until the next; a block is one run to its end."""
    global _protected
    if not _in_block:
        _protected = {}


@contextmanager
def protecting_inputs() -> Generator[None]:
    """Be one run of a program, or a part of the one that is open: what is protected in this block is so to its end."""
    global _protected, _in_block
    before = _protected, _in_block
    _protected, _in_block = dict(_protected or {}), True
    try:
        yield
    finally:
        _protected, _in_block = before


def require_replaceable(path: str | Path) -> None:
    """Refuse to replace or remove a file that is an input, or lies in a folder that is one; see `protect`.

    Raises:
        PyrasegError: it is one; the message names it.
    """
    if not _protected or not os.path.exists(path):
        return
    for place in (Path(path), *Path(path).absolute().parents):
        status = os.stat(place)
        known = _protected.get((status.st_dev, status.st_ino))
        if known is not None and os.path.exists(known) and os.path.samefile(known, place):  # numbers are used again
            what = "an input of this run" if place == Path(path) else f"in {known}, an input of this run,"
            raise PyrasegError(f"{path} is {what} and is not replaced. Give another place for results.")


@contextmanager
def replacing(path: str | Path, *, keeps_old: bool = False) -> Generator[Path]:
    """Yield a temporary path beside `path` to write a file or fill a folder at; rename it to `path` at the end.

    A reader of `path` sees the old content or the new, whole one. When the block raises, or the process dies, `path` is
    as before. A file at `path` is replaced; a folder there must be empty or absent. Parents are made.

    Args:
        path: to write.
        keeps_old: whether the caller has put away what is replaced, so that it may be an input.

    Raises:
        DiskError: the disk is full, read-only or not ours to write on.
        PyrasegError: `path` is an input of the open run, see `protect`.

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
    if not keeps_old:
        require_replaceable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"The folder {path.parent} cannot be created: {error.strerror}. Choose another.") from error
    temporary = path.with_name(f".{path.name[:_REPEATED]}.{uuid.uuid4().hex[:8]}.tmp")
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
        elif temporary.exists():  # a read-only disk refuses to remove even what is not there
            temporary.unlink()


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
            f"Nothing can be written to {folder}: {refused.strerror} ({free:.0f} MB are free). Existing files are "
            "unchanged. Free some space, or choose another folder."
        ) from error


def require_new(folder: Path) -> None:
    """Raise PyrasegError unless a folder that is to be written is absent or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PyrasegError(f"{folder} exists and is not empty. Give a new or an empty folder.")


def remove_results(folder: Path, names: str) -> None:
    """Remove a folder of results of an earlier run, if there is one.

    Args:
        folder: of files alone.
        names: regular expression of what they are called.

    Raises:
        PyrasegError: it holds something else, or an input.
    """
    for path in folder.glob("*"):
        if path.is_dir() or not re.fullmatch(names, path.name):
            raise PyrasegError(f"{folder} holds {path.name}, which is not a result and is not replaced. Move it away.")
        require_replaceable(path)
    if folder.is_dir():
        shutil.rmtree(folder)


def require_writable(folders: Iterable[str | Path | None] = (), *, files: Iterable[str | Path] = ()) -> None:
    """Refuse, before any work, places that results cannot be written to at the end of it. Nothing is made or changed.

    Args:
        folders: of results; they need not be there yet.
        files: to be written.

    Raises:
        PyrasegError: a folder is None, or it or one above it is a file, or a file is a folder.
        DiskError: nothing can be written there, or it cannot even be looked at.
    """
    places = []
    for folder in folders:
        if folder is None:
            raise PyrasegError("There is no folder for the results (output_dir is null). Give one.")
        places.append(Path(folder).expanduser().absolute())
    for file in (Path(file).expanduser().absolute() for file in files):
        if _nearest(file) == file and file.is_dir():
            raise PyrasegError(f"{file} is a folder, but a file is to be written there. Give another path.")
        places.append(file.parent)
    for folder in places:
        there = _nearest(folder)
        if not there.is_dir():
            raise PyrasegError(
                f"Results are to be written to the folder {folder}, but {there} is a file. Give another."
            )
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise DiskError(f"Nothing can be written to {there}: {error.strerror}. Give another folder.") from error


def _nearest(path: Path) -> Path:
    """Return a path, or where it is not there the nearest one above it that is.

    Raises:
        DiskError: the system does not tell, or there is none, as on a drive that is not there.
    """
    for place in (path, *path.parents):
        try:
            os.stat(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # no right to look into a folder, a name too long for the disk, links in a circle
            raise DiskError(f"Nothing can be written to {place}: {error.strerror}. Give another folder.") from error
        return place
    raise DiskError(f"Nothing can be written to {path}: there is no {path.anchor}. Give another folder.")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any, *, indent: int | None = 1) -> None:
    """Write plain values as JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=indent) + "\n")


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    """Return a hash of a file's content, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def read_csv(path: str | Path, needed: Sequence[str] = (), *, remedy: str = "") -> list[dict[str, str]]:
    """Return the rows of a CSV file by the names of its columns.

    Args:
        path: of the file, in UTF-8, with the names of the columns in its first line.
        needed: columns that it must have.
        remedy: what to do about a wrong file, as a sentence, for the message.

    Raises:
        PyrasegError: the file is not there, cannot be read, or lacks a column.
    """
    if not Path(path).is_file():
        raise PyrasegError(f"There is no file {path}. {remedy}".rstrip())
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PyrasegError(f"{path} cannot be read as a CSV file: {error}. {remedy}".rstrip()) from error
    missing = [column for column in needed if column not in columns]
    if missing:
        raise PyrasegError(
            f"{path} has the columns {', '.join(columns) or 'none'} and lacks {', '.join(missing)}. {remedy}".rstrip()
        )
    return rows


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, digits: int | None = 8) -> None:
    """Write rows as CSV, whole or not at all; None, NaN and what a row lacks are blank.

    Args:
        path: of the file.
        columns: their names, in the order of the file.
        rows: values by the names of columns.
        digits: of floats behind the point; as many as tell them apart if None.
    """

    def text(value: Any) -> Any:
        if isinstance(value, float):
            return "" if math.isnan(value) else value if digits is None else f"{value:.{digits}f}"
        return value

    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows([text(row.get(column)) for column in columns] for row in rows)
