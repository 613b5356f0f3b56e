# SPDX-License-Identifier: Apache-2.0
"""The SHA-256 of every file of a data set, so that a change is noticed."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bundle.pyraseg.core import PyrasegError, file_digest, replacing

MANIFEST = "manifest.json"


def write_manifest(folder: Path, paths: Iterable[str | Path], settings: Mapping[str, Any]) -> None:
    """Write `manifest.json`: the settings, and under "files" a hash for each file, by its path relative to the folder.

    Args:
        folder: to write to.
        paths: files, and folders whose files all count.
        settings: what the list was made with.
    """
    listed = [
        file
        for path in sorted({Path(path) for path in paths})
        for file in (sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path])
    ]
    hashes = {
        Path(os.path.relpath(file, folder)).as_posix(): file_digest(file)
        for file in tqdm(listed, desc="Hashing", unit="file", disable=None)
    }
    with replacing(folder / MANIFEST) as partial:
        partial.write_text(json.dumps({**settings, "files": hashes}, indent=2) + "\n", encoding="utf-8")


def changed_files(manifest: Path) -> list[str]:
    """Return what has become of the files that a manifest lists, one line for each that is no longer the same.

    Raises:
        PyrasegError: the file is no manifest.
    """
    try:
        hashes = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        listed = sorted((name, str(value)) for name, value in hashes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PyrasegError(f'{manifest} is no manifest: it holds no "files" with their hashes.') from error
    changed = []
    for name, value in tqdm(listed, desc="Comparing hashes", unit="file", disable=None):
        path = manifest.parent / name
        if not path.is_file():
            changed.append(f"{name} is gone")
        elif file_digest(path) != value:
            changed.append(f"{name} has changed")
    return changed
