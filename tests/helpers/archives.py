# SPDX-License-Identifier: Apache-2.0
"""Archives to unpack, good and bad."""

import io
import tarfile
import zipfile
from pathlib import Path


def make_zip(path: Path, files: dict[str, bytes], **more: object) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o4777
            archive.addfile(info, io.BytesIO(content))
    return path


def add_link(path: Path, kind: bytes) -> Path:
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("set/images/link")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    return path
