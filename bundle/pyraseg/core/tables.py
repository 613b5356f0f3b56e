# SPDX-License-Identifier: Apache-2.0
"""Tables as CSV files."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.core.files import replacing


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
