# SPDX-License-Identifier: Apache-2.0
"""A package as a zip of one form, or as a folder; whatever has another form is refused.

In a zip, the same files are the same bytes: they lie in one folder, sorted by name, stored without compression (whose
output depends on the version of zlib), with one date and one mode. Nothing else is in the file, so a reader of its list
of files and a reader of its entries see the same.
"""

import io
import re
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

from bundle.pyraseg.core import PyrasegError

#: Limits of what is read; a package has some hundred files and tens of megabytes.
MOST_FILES = 5_000
MOST_BYTES = 2**30
MOST_ENTRY = 512  # bytes of a file's entry in the list of files
#: What the hub, its client and git lay beside the files of a package; nothing of it is ever run.
BESIDE = (".cache", ".git", ".gitattributes")
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can hold
_MODE = stat.S_IFREG | 0o644
_PART = "[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?"
SAFE_PATH = f"{_PART}(/{_PART})*"
_END = struct.Struct("<4s4H2LH")  # end of central directory record, APPNOTE 4.3.16


def archive_bytes(name: str, files: Mapping[str, bytes]) -> bytes:
    """Return the zip of a folder `name` that holds `files`, by path."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", allowZip64=False) as archive:
        for path in sorted(files):
            info = zipfile.ZipInfo(f"{name}/{path}", date_time=_DATE)
            info.create_system, info.external_attr = 3, _MODE << 16
            archive.writestr(info, files[path])
    return buffer.getvalue()


def read_archive(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return the name of a package's folder and its files, by path in it; nothing is unpacked or run.

    Raises:
        PyrasegError: it is no zip, is too large or grows when it is unpacked, holds a link, two files of one name or a
            path that is not safe, or differs in any byte from what `archive_bytes` makes of its files.
    """
    if not path.is_file():
        raise PyrasegError("there is no such file")
    if path.stat().st_size > MOST_BYTES:
        raise PyrasegError(f"it has {path.stat().st_size:,} bytes; {MOST_BYTES:,} are the most")
    data = path.read_bytes()
    _check_end(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            _check_entries(infos, len(data))
            contents = {info.filename: archive.read(info) for info in infos}
    except PyrasegError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OSError, struct.error) as error:
        raise PyrasegError(f"it is no complete zip: {error}") from error
    name = infos[0].filename.partition("/")[0]
    files = {}
    for entry, content in contents.items():
        folder, slash, file = entry.partition("/")
        if folder != name or not slash:
            raise PyrasegError(f"{entry} lies outside its folder {name}")
        files[file] = content
    if archive_bytes(name, files) != data:
        raise PyrasegError("it has bytes between, before or after its files, unlike a package")
    return name, files


def unpack(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files, by path, below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _check_end(data: bytes) -> None:
    """Check how many entries a zip says it has before anything makes a list of them."""
    if len(data) < _END.size or data[-_END.size :][:4] != b"PK\5\6":
        raise PyrasegError("it is no complete zip: its end is missing, or something was added to it")
    _, _, _, _, count, length, _, _ = _END.unpack(data[-_END.size :])
    if not 0 < count <= MOST_FILES or length > count * MOST_ENTRY:
        raise PyrasegError(f"it says that it holds {count:,} files, in a list of {length:,} bytes; that is no package")
    if data[-_END.size - 20 :].startswith(b"PK\6\7"):  # the locator of a second end, which would be read instead
        raise PyrasegError("it is in the form for zips of more than 4 GB, which no package needs")


def _check_entries(infos: list[zipfile.ZipInfo], size: int) -> None:
    seen: set[str] = set()
    for info in infos:
        if re.fullmatch(SAFE_PATH, info.orig_filename) is None:
            raise PyrasegError(f"it holds {info.orig_filename!r}, which is no safe path of a file")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise PyrasegError(f"it holds {info.filename}, which is a link or a device")
        if info.filename.casefold() in seen:
            raise PyrasegError(f"it holds {info.filename} twice, which is ambiguous")
        seen.add(info.filename.casefold())
    total = sum(info.file_size for info in infos)
    if total > size:
        raise PyrasegError(f"it would grow from {size:,} to {total:,} bytes; a package is not compressed")
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise PyrasegError(f"it holds {info.filename} compressed or encrypted; a package is neither")


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the files of a package's folder by path in it, all but those of `BESIDE`; nothing is run.

    Raises:
        PyrasegError: it holds a link, a path that no package has, or more than a package.
    """
    files: dict[str, bytes] = {}
    left, size = [folder], 0
    while left:
        for path in sorted(left.pop().iterdir()):
            name = path.relative_to(folder).as_posix()
            if name in BESIDE:
                continue
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise PyrasegError(f"it holds {name}, which is a link or a device")
            if re.fullmatch(SAFE_PATH, name) is None:
                raise PyrasegError(f"it holds {name!r}, which is no safe path of a file")
            if path.is_dir():
                left.append(path)
                continue
            size += path.stat().st_size
            if size > MOST_BYTES or len(files) == MOST_FILES:
                raise PyrasegError(f"it holds more than {MOST_FILES:,} files, or more than {MOST_BYTES:,} bytes")
            files[name] = path.read_bytes()
    return files
