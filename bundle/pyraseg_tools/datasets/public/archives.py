# SPDX-License-Identifier: Apache-2.0
"""Unpack an archive from a stranger: nothing lands outside the folder, nothing is a link, nothing fills the disk."""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from bundle.pyraseg.core import PyrasegError

#: An archive of images, compressed already, grows little; one that grows more than this many times is a trap.
MOST_GROWTH = 100
#: What macOS and Windows leave in archives.
_LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db")


def extract(archive: Path, folder: Path) -> None:
    """Unpack the regular files of a zip or tar archive, compressed or not, below a folder.

    Everything is checked before the first byte is written. The files get default permissions.

    Raises:
        PyrasegError: the archive is damaged or none; a name leads out of the folder; it holds a link, a device or two
            files of one name; it is encrypted, grows too much, or does not fit onto the disk.
    """
    try:
        with _members(archive) as members:
            members = [member for member in members if not _is_litter(member.name)]
            _check(archive, folder, members)
            for member in tqdm(members, desc=f"Unpacking {archive.name}", unit="file", disable=None):
                target = folder / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError, FileExistsError) as error:
        raise PyrasegError(f"{archive} cannot be unpacked: {error}. Delete it and run the program again.") from error


@dataclass(frozen=True)
class _Member:
    """A regular file in an archive."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


@contextmanager
def _members(archive: Path) -> Generator[list[_Member]]:
    """Yield the regular files of an archive; refuse links, devices and encrypted files."""
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as file:
            infos = [info for info in file.getmembers() if not info.isdir()]
            for info in infos:
                if not info.isreg():
                    raise PyrasegError(f"{archive} holds {info.name}, which is a link or a device. Do not use it.")
            yield [_Member(info.name, info.size, partial(file.extractfile, info)) for info in infos]  # pyrefly: ignore # files
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            infos = [info for info in file.infolist() if not info.is_dir()]
            for info in infos:
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG) or info.flag_bits & 1:
                    raise PyrasegError(f"{archive} holds {info.filename}, which is a link or encrypted. Do not use it.")
            yield [_Member(info.filename, info.file_size, partial(file.open, info)) for info in infos]
    else:
        raise PyrasegError(f"{archive} is neither a zip nor a tar archive. Delete it and run the program again.")


def _check(archive: Path, folder: Path, members: list[_Member]) -> None:
    for member in members:
        parts = member.name.replace("\\", "/").split("/")
        if member.name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in member.name:
            raise PyrasegError(f"{archive} holds {member.name!r}, which leads out of its folder. Do not use it.")
    names = [PurePosixPath(member.name) for member in members]
    if len(set(names)) < len(names):
        raise PyrasegError(f"{archive} holds two files of one name. Do not use it.")
    total = sum(member.size for member in members)
    if total > MOST_GROWTH * archive.stat().st_size:
        raise PyrasegError(
            f"{archive} would grow to {total:,} bytes, more than {MOST_GROWTH} times its own size. Do not use it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise PyrasegError(f"{archive} needs {total:,} bytes in {folder}, where {free:,} are free. Make room.")


def _is_litter(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(part in _LITTER or part.startswith("._") for part in parts)
