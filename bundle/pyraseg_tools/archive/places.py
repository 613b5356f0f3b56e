# SPDX-License-Identifier: Apache-2.0
"""Where series come from, and where results go: a folder, a PACS over DICOMweb, object storage."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from dicomweb_client.api import DICOMwebClient

from bundle.pyraseg.core import PyrasegError, replacing, require, write_json
from bundle.pyraseg_tools.archive.stores import is_store, open_store, plain_store_errors
from bundle.pyraseg_tools.archive.table import Row
from bundle.pyraseg_tools.pacs import RemoteSeries, Unavailable, WebArchive, connect

#: A UID that can be the name of a folder, and the number of a series or view of the same.
PLAIN_UID = re.compile(r"(?=.{1,80}$)[0-9]+(\.[0-9]+)*(:[0-9]+){0,2}")


@dataclass(frozen=True)
class Access:
    """Hold how a PACS is reached, see `pacs.connect`; credentials come from the environment of each process."""

    ca_bundle: Path | None = None
    allow_http: bool = False

    def connect(self, url: str) -> DICOMwebClient:
        """Return a client of a PACS."""
        return connect(url, environment=os.environ, ca_bundle=self.ca_bundle, allow_http=self.allow_http)


class Source(Protocol):
    """Where series come from. See `pacs.Archive` for what is raised."""

    def fetch(self, row: Row, folder: Path) -> list[Path]:
        """Return the files of a series, brought into an empty folder where they are not on this machine."""
        ...


class Target(Protocol):
    """Where results go. See `pacs.Archive` for what is raised."""

    def find(self, name: str) -> Mapping[str, Any] | None:
        """Return what was found in a series whose result is there, or None; a target may not know."""
        ...

    def deliver(self, result: Path, name: str, figures: Mapping[str, Any], folder: Path) -> None:
        """Store a DICOM object and what was found; whole or not at all, and no second time.

        Args:
            result: the file.
            name: what it is called there, without a suffix; it says which images and which model it is of.
            figures: what `find` is to return.
            folder: for its own use.
        """
        ...


def open_source(url: str, access: Access) -> Source:
    """Return a source by its address.

    Raises:
        PyrasegError: there is none, or no way to it.
    """
    if is_store(url):
        return StoreSource(url)
    return WebSource(access.connect(url)) if is_web(url) else FolderSource(Path(url))


def open_target(url: str, access: Access) -> Target:
    """Return a target by its address.

    Raises:
        PyrasegError: there is no way to it.
    """
    if is_store(url):
        return StoreTarget(url)
    return WebTarget(access.connect(url)) if is_web(url) else FolderTarget(Path(url))


def is_web(url: str) -> bool:
    """Return whether an address is that of a PACS."""
    return url.startswith(("http://", "https://"))


def result_name(row: Row, model: str) -> str:
    """Return what the result of a series is called: STUDY/SERIES/MODEL_IMAGES_seg, both hashes of 12 digits.

    UIDs that are none, which come from headers of others, are replaced by hashes.

    >>> row = Row("", "1.2", "../etc", "CT", "", "", 0, 0, 1, 0, "ab" * 32, (), "")
    >>> result_name(row, "0123456789abcdef")
    '1.2/xf7f9121fdb53/0123456789ab_abababababab_seg'
    """
    study, series = (
        uid.replace(":", "_") if PLAIN_UID.fullmatch(uid) else f"x{sha256(uid.encode()).hexdigest()[:12]}"
        for uid in (row.study, row.series)
    )
    return f"{study}/{series}/{model[:12]}_{row.digest[:12]}_seg"


class FolderSource:
    """A folder, which every worker sees at the same path; its files are read where they are."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def fetch(self, row: Row, folder: Path) -> list[Path]:
        files = [self.root / file for file in row.files]
        for file in files:
            if ".." in file.parts or not file.is_relative_to(self.root):
                raise PyrasegError(f"the table names {file}, which is not in {self.root}. Correct the table.")
        if not self.root.is_dir():
            raise Unavailable(f"There is no folder {self.root} any more. Mount it on each machine, or list it anew.")
        if missing := [file for file in files if not file.is_file()]:
            raise PyrasegError(f"{missing[0]} is not there any more. List the source again.")
        require_unchanged(row, sum(file.stat().st_size for file in files))
        return files


class StoreSource:
    """Object storage; the images of one series at a time are on this machine."""

    def __init__(self, url: str) -> None:
        self.url, self.store = url, open_store(url)

    def fetch(self, row: Row, folder: Path) -> list[Path]:
        obstore, files = require("obstore"), []
        with plain_store_errors(self.url):
            for number, path in enumerate(row.files):
                files.append(folder / f"{number:06d}.dcm")
                with files[-1].open("wb") as file:
                    for chunk in obstore.get(self.store, path).stream():
                        file.write(chunk)
        require_unchanged(row, sum(file.stat().st_size for file in files))
        return files


class WebSource:
    """A PACS, over DICOMweb."""

    def __init__(self, client: DICOMwebClient) -> None:
        self.archive = WebArchive(client)

    def fetch(self, row: Row, folder: Path) -> list[Path]:
        return self.archive.fetch(RemoteSeries(row.study, row.series, row.modality, row.images), folder)


def require_unchanged(row: Row, size: int) -> None:
    """Refuse a series that has another size than when it was listed."""
    if size != row.bytes:
        raise PyrasegError(
            f"its {row.images} files have {size} bytes, and had {row.bytes} when they were listed. List the source "
            "again."
        )


class FolderTarget:
    """A folder, which every worker sees at the same path."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, name: str) -> Mapping[str, Any] | None:
        result, figures = (self.root / f"{name}.{ending}" for ending in ("dcm", "json"))
        return json.loads(figures.read_text(encoding="utf-8")) if result.is_file() and figures.is_file() else None

    def deliver(self, result: Path, name: str, figures: Mapping[str, Any], folder: Path) -> None:
        target = self.root / f"{name}.dcm"
        for left in target.parent.glob(f".{target.stem}.*.tmp"):  # by a worker that was killed; the series is ours now
            left.unlink(missing_ok=True)
        write_json(target.with_suffix(".json"), dict(figures))  # first: whoever finds the result finds them
        with replacing(target) as temporary:
            shutil.copyfile(result, temporary)


class StoreTarget:
    """Object storage: an object is there whole or not at all, and is not replaced (If-None-Match)."""

    def __init__(self, url: str) -> None:
        self.url, self.store = url, open_store(url)

    def find(self, name: str) -> Mapping[str, Any] | None:
        obstore = require("obstore")
        with plain_store_errors(self.url):
            try:
                obstore.head(self.store, f"{name}.dcm")
                return json.loads(bytes(obstore.get(self.store, f"{name}.json").bytes()))
            except FileNotFoundError:
                return None

    def deliver(self, result: Path, name: str, figures: Mapping[str, Any], folder: Path) -> None:
        obstore, errors = require("obstore"), require("obstore.exceptions")
        with plain_store_errors(self.url):
            obstore.put(self.store, f"{name}.json", json.dumps(dict(figures)).encode())
            try:
                obstore.put(self.store, f"{name}.dcm", result, mode="create", use_multipart=False)
            except errors.AlreadyExistsError:  # another worker's, or ours whose answer was lost: of the same bytes
                return


class WebTarget:
    """A PACS: the same images and model make an object of the same UIDs, which is stored unless it is there."""

    def __init__(self, client: DICOMwebClient) -> None:
        self.archive = WebArchive(client)

    def find(self, name: str) -> Mapping[str, Any] | None:
        return None

    def deliver(self, result: Path, name: str, figures: Mapping[str, Any], folder: Path) -> None:
        self.archive.deliver([result], folder)
