# SPDX-License-Identifier: Apache-2.0
"""What an archive holds, as one table in Parquet: a row a series, and one for each group of files that are none."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bundle.pyraseg.core import PyrasegError, replacing, require

#: Rows that are held in memory at a time.
ROWS = 1000
#: How the UID of a series begins that has none, see `dicom.Series`: nothing says that two of them are one.
NO_UID = "no-uid:"


@dataclass(frozen=True)
class Row:
    """Hold what is known of a series from headers, or of files that are no series.

    Attributes:
        source: the folder or the address that it was found at.
        study, series: UIDs; that of the series is the one that chooses it, see `dicom.Series`. "" for other files.
        modality, body_part, description: of the headers, without names of patients.
        rows, columns: pixels of its images; 0 where they differ or are not known.
        images: DICOM objects of the series, or files.
        bytes: of them together; 0 where the source does not tell.
        digest: SHA-256 of the SOP Instance UIDs, sorted; "" for files that are no series.
        files: of them, below the source; none where the source finds them by UIDs.
        skip: why it is not segmented, or "".
    """

    source: str
    study: str
    series: str
    modality: str
    body_part: str
    description: str
    rows: int
    columns: int
    images: int
    bytes: int
    digest: str
    files: tuple[str, ...]
    skip: str

    @property
    def id(self) -> str:
        """Return what stands for these images in journals, 32 hexadecimal digits: other images have another."""
        text = "\n".join((self.study, self.series, self.digest))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def instance_uid(self) -> str:
        """Return the Series Instance UID, which several rows may share, see `dicom.Series`; "" where there is none."""
        return "" if self.series.startswith(NO_UID) else self.series.partition(":")[0]


def digest_of(instance_uids: Iterable[str]) -> str:
    """Return what stands for a set of images: SHA-256 of their SOP Instance UIDs, sorted."""
    return hashlib.sha256("\n".join(sorted(instance_uids)).encode()).hexdigest()


def in_part(row: Row, part: tuple[int, int]) -> bool:
    """Return whether a row belongs to a part of the archive, (number from 1, parts), by its `id`.

    >>> row = Row("", "1.2", "1.2.3", "CT", "", "", 0, 0, 1, 0, "ab", (), "")
    >>> [in_part(row, (number, 3)) for number in (1, 2, 3)].count(True)
    1
    """
    number, parts = part
    return int(row.id[:8], 16) % parts == number - 1


def write_table(path: Path, rows: Iterable[Row], join: Callable[[Sequence[Row]], Iterable[Row]]) -> None:
    """Write rows as they come, so that memory hardly grows with the archive; the table appears whole or not at all.

    Args:
        path: of the table.
        rows: of a listing, folder by folder.
        join: makes the rows of those that share a Series Instance UID, for the images of a series may lie in several
            folders.
    """
    seen: set[int] = set()  # 64 bits a series
    shared: dict[str, list[Row]] = {}

    def noted() -> Iterator[Row]:
        for row in rows:
            if uid := row.instance_uid:
                key = hash(uid)
                if key in seen:
                    shared[uid] = []
                seen.add(key)
            yield row

    def others() -> Iterator[Row]:
        for row in read_table(first):
            if row.instance_uid in shared:
                shared[row.instance_uid].append(row)
            else:
                yield row

    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder, replacing(path) as final:
        first = Path(folder, "rows.parquet")
        _write(first, noted())
        if shared:
            _write(final, chain(others(), (row for parts in shared.values() for row in join(parts))))
        else:
            first.replace(final)


def read_table(path: Path, *, files: bool = True) -> Iterator[Row]:
    """Yield the rows of a table, a thousand in memory at a time.

    It need not be as it was written: rows may have been filtered, sorted or joined by another program, and columns
    added.

    Args:
        path: of the table.
        files: with the names of files, which take most of the time.

    Raises:
        PyrasegError: it is no such table.
    """
    parquet = require("pyarrow.parquet")
    if not path.is_file():
        raise PyrasegError(f"There is no table {path}. Give the Parquet file that an earlier run wrote.")
    names = [field.name for field in fields(Row)]
    try:
        with parquet.ParquetFile(path) as file:
            missing = [name for name in names if name not in file.schema_arrow.names]
            if missing:
                raise PyrasegError(
                    f"The table {path} lacks the columns {', '.join(missing)}. Keep them when it is filtered."
                )
            wanted = [name for name in names if files or name != "files"]
            for batch in file.iter_batches(ROWS, columns=wanted):
                columns = {"files": [()] * len(batch), **batch.to_pydict()}
                columns["files"] = [tuple(named or ()) for named in columns["files"]]
                yield from map(Row, *(columns[name] for name in names))
    except (OSError, ValueError) as error:
        if isinstance(error, PyrasegError):
            raise
        raise PyrasegError(
            f"{path} cannot be read as a Parquet table of series. Give one that this command wrote."
        ) from error


def in_batches(rows: Iterable[Row], size: int = ROWS) -> Iterator[list[Row]]:
    """Yield rows, so many at a time."""
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch


def _write(path: Path, rows: Iterable[Row]) -> None:
    pyarrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    kinds: dict[Any, Any] = {str: pyarrow.string(), int: pyarrow.int64()}
    schema = pyarrow.schema(
        [(field.name, kinds.get(field.type, pyarrow.list_(pyarrow.string()))) for field in fields(Row)]
    )
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in in_batches(rows):
            columns = {name: [getattr(row, name) for row in batch] for name in schema.names}
            writer.write_table(pyarrow.Table.from_pydict(columns, schema=schema))
