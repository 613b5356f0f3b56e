# SPDX-License-Identifier: Apache-2.0
"""A package as a folder: downloaded from a hub, cloned, or unpacked."""

import re
from pathlib import Path

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.packaging.archive import MOST_BYTES, MOST_FILES, SAFE_PATH

#: What the hub, its client and git lay beside the files of a package; nothing of it is ever run.
BESIDE = (".cache", ".git", ".gitattributes")


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
