# SPDX-License-Identifier: Apache-2.0
"""What lies in a source, by headers alone, folder by folder: the rows of the table of an archive."""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

import pydicom
from dicomweb_client.api import DICOMwebClient

from bundle.pyraseg.core import require
from bundle.pyraseg.dicom import Purpose, Series, scan_files, series_facts
from bundle.pyraseg_tools.archive.stores import open_store, plain_store_errors
from bundle.pyraseg_tools.archive.table import Row, digest_of
from bundle.pyraseg_tools.pacs import RemoteSeries, find_series, instances_of

if TYPE_CHECKING:
    from obstore.store import ObjectStore

#: Bytes of an object that are read for its header. A longer header is read with the whole object.
HEAD = 1 << 16
#: Objects that are read at a time: nearly all of the time is the way to the store and back.
AT_ONCE = 16


@dataclass(frozen=True)
class Wanted:
    """Hold what a listing compares series with.

    Attributes:
        purpose: of the model.
        select: attributes that the slices of a series must have, see `dicom.read_selection`.
    """

    purpose: Purpose
    select: dict[str, object]

    def skips(self, modality: str) -> str:
        """Return why series of a modality are not segmented, or ""."""
        wanted = self.purpose.modality
        if "modality" not in self.purpose.refuse or not wanted or not modality or modality.upper() in wanted:
            return ""
        return f"its modality is {modality}, and the model is for {' or '.join(wanted)}"


#: UIDs that a result refers to its images by.
NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


class Listing(Protocol):
    """Find what a source has."""

    def rows(self) -> Iterator[Row]:
        """Yield what there is, as it is found."""
        ...

    def join(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Yield the rows of a series that was found in several folders."""
        ...


class FolderListing:
    """Find the series in a folder and those below it; what is hidden, and the folders left out, is not looked at.

    Args:
        root: the folder.
        wanted: what series are compared with.
        leave_out: folders of results and of work.
    """

    def __init__(self, root: Path, wanted: Wanted, *, leave_out: Sequence[Path] = ()) -> None:
        self.root, self.wanted = root.resolve(), wanted
        self.leave_out = [folder.resolve() for folder in leave_out]

    def rows(self) -> Iterator[Row]:
        closed: list[Path] = []
        for folder, folders, names in os.walk(self.root, onerror=lambda error: closed.append(Path(error.filename))):
            here = Path(folder)
            folders[:] = sorted(
                name for name in folders if not name.startswith(".") and here / name not in self.leave_out
            )
            yield from self._no_series(
                [here / name for name in folders if (here / name).is_symlink()], "link to a folder, not followed"
            )
            files = [here / name for name in sorted(names) if not name.startswith(".") and _may_be_read(here / name)]
            yield from self._rows(files)
        yield from self._no_series(closed, "folder that cannot be read")

    def join(self, rows: Sequence[Row]) -> Iterator[Row]:
        return self._rows([self.root / file for row in rows for file in row.files])

    def _rows(self, files: Sequence[Path]) -> Iterator[Row]:
        for found, row in rows_of(files, self.root, self.wanted):
            row = replace(row, source=str(self.root))
            try:
                yield replace(row, bytes=sum(file.stat().st_size for file in found))
            except OSError:  # an archive lives
                yield replace(row, skip=row.skip or "files of it went away while it was listed: list it again")

    def _no_series(self, paths: Sequence[Path], reason: str) -> Iterator[Row]:
        if paths:
            yield replace(_other(paths, self.root, reason), source=str(self.root))


class StoreListing:
    """Find the series in object storage: of each object only the header is read.

    Args:
        url: of a store and a prefix in it.
        wanted: what series are compared with.
        leave_out: addresses of results, which are not looked at where they lie below.
    """

    def __init__(self, url: str, wanted: Wanted, *, leave_out: Sequence[str] = ()) -> None:
        self.url, self.wanted = url, wanted
        self.store = open_store(url)
        root = f"{url.rstrip('/')}/"
        self.leave_out = tuple(f"{one[len(root) :].rstrip('/')}/" for one in leave_out if one.startswith(root))

    def rows(self) -> Iterator[Row]:
        with plain_store_errors(self.url):
            chunks = require("obstore").list(self.store)
            found = ((str(item["path"]), int(item["size"])) for chunk in chunks for item in chunk)
            images = (item for item in found if not item[0].startswith(self.leave_out))
            for _, group in groupby(images, key=lambda item: item[0].rpartition("/")[0]):
                yield from self._rows(dict(group))

    def join(self, rows: Sequence[Row]) -> Iterator[Row]:
        with plain_store_errors(self.url):
            heads = require("obstore").head
            sizes = {file: int(heads(self.store, file)["size"]) for row in rows for file in row.files}
        return self._rows(sizes)

    def _rows(self, sizes: dict[str, int]) -> Iterator[Row]:
        with TemporaryDirectory() as name, ThreadPoolExecutor(AT_ONCE) as pool:
            folder = Path(name)
            places = {folder / f"{number:06d}": path for number, path in enumerate(sorted(sizes))}

            def read(item: tuple[Path, str]) -> None:
                place, path = item
                place.write_bytes(head_of(self.store, path, sizes[path]))

            with plain_store_errors(self.url):
                list(pool.map(read, places.items()))
            for found, row in self._sure(list(rows_of(list(places), folder, self.wanted)), places, sizes):
                paths = [places[place] for place in found]
                total = sum(sizes[path] for path in paths)
                yield replace(row, source=self.url, files=tuple(paths), bytes=total)

    def _sure(
        self, rows: Sequence[tuple[Sequence[Path], Row]], places: dict[Path, str], sizes: dict[str, int]
    ) -> Iterator[tuple[Sequence[Path], Row]]:
        """Yield rows, those that have a fault after a look at the whole objects: pixels may tell copies apart."""
        for found, row in rows:
            if not row.skip or self.wanted.skips(row.modality) or all(sizes[places[place]] <= HEAD for place in found):
                yield found, row
                continue
            with plain_store_errors(self.url):
                for place in found:
                    place.write_bytes(bytes(require("obstore").get(self.store, places[place]).bytes()))
            yield from rows_of(found, found[0].parent, self.wanted)


def head_of(store: "ObjectStore", path: str, size: int) -> bytes:
    """Return the first bytes of an object, so many that the header is among them."""
    obstore = require("obstore")
    if size <= HEAD:
        return bytes(obstore.get(store, path).bytes())
    start = bytes(obstore.get_range(store, path, start=0, end=HEAD))
    stream = BytesIO(start)
    try:
        pydicom.dcmread(stream, stop_before_pixels=True, force=True)
        ends = stream.tell() < HEAD  # before the pixels; else the header goes on
    except Exception:  # a header that is cut off makes pydicom raise nearly every type there is
        ends = False
    return start if ends else bytes(obstore.get(store, path).bytes())


class WebListing:
    """Find the series of a PACS, by searches alone (QIDO-RS): one for each study, and one for each series.

    Args:
        client: of the PACS.
        filters: what is listed at all, see `pacs.parse_filters`.
        wanted: what series are compared with.
    """

    def __init__(self, client: DICOMwebClient, filters: Mapping[str, str], wanted: Wanted) -> None:
        self.client, self.filters, self.wanted = client, filters, wanted

    def rows(self) -> Iterator[Row]:
        for series in find_series(self.client, self.filters):
            yield self._row(series)

    def join(self, rows: Sequence[Row]) -> Iterator[Row]:
        yield from rows  # of two studies with one series UID

    def _row(self, series: RemoteSeries) -> Row:
        found = instances_of(self.client, series)
        sizes = {(int(one.get("Rows") or 0), int(one.get("Columns") or 0)) for one in found.values()}
        rows, columns = sizes.pop() if len(sizes) == 1 else (0, 0)
        about = {"modality": series.modality, "body_part": "", "description": series.description}
        shape = {"rows": rows, "columns": columns, "images": len(found), "bytes": 0}
        skip = self.wanted.skips(series.modality)
        return Row(
            str(self.client.base_url), series.study_uid, series.uid, **about, **shape, digest=digest_of(found),
            files=(), skip=skip,
        )  # fmt: skip


def rows_of(files: Sequence[Path], root: Path, wanted: Wanted) -> Iterator[tuple[Sequence[Path], Row]]:
    """Yield a row, with its files, for each series among files, and for each reason why others are none.

    Args:
        files: of one folder, or of one series.
        root: a folder above them.
        wanted: what series are compared with.
    """
    if not files:
        return
    scan = scan_files(files, root=root, keywords=wanted.select)
    for series in scan.series:
        yield series.files, _row_of(series, root, wanted)
    for reason, skipped in scan.skipped_files.items():
        yield skipped, _other(skipped, root, reason)


def _other(paths: Sequence[Path], root: Path, reason: str) -> Row:
    """Return the row of what is no series."""
    return Row("", "", "", "", "", "", 0, 0, len(paths), 0, "", _below(paths, root), reason)


def _may_be_read(path: Path) -> bool:
    """Return whether a path is that of a file; of what cannot be looked at, reading it says why."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _row_of(series: Series, root: Path, wanted: Wanted) -> Row:
    facts = series_facts(series, wanted.select)
    rows, columns, _ = facts.size
    digest = digest_of(
        str(header.get("SOPInstanceUID") or file.name)
        for file, header in zip(series.files, series.headers, strict=True)
    )
    return Row(
        source="",
        study=series.study_uid,
        series=series.uid,
        modality=series.modality,
        body_part=facts.body_part,
        description=facts.description,
        rows=rows,
        columns=columns,
        images=len(series.files),
        bytes=0,
        digest=digest,
        files=_below(series.files, root),
        skip=wanted.skips(series.modality) or _unnamed(series) or facts.problem,
    )


def _unnamed(series: Series) -> str:
    """Return why no result can refer to the images of a series, or ""."""
    missing = [name for name in NEEDED if not all(header.get(name) for header in series.headers)]
    return f"its images have no {' and no '.join(missing)}, and a result refers to them by these" if missing else ""


def _below(files: Iterable[Path], root: Path) -> tuple[str, ...]:
    return tuple(file.relative_to(root).as_posix() for file in files)
