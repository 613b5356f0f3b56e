# SPDX-License-Identifier: Apache-2.0
"""The table, beside what pyarrow alone makes of it."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.archive import Row, read_table, write_table
from bundle.pyraseg_tools.archive.table import ROWS, digest_of, in_part


def row(number: int, **others: object) -> Row:
    about = {"modality": "CT", "body_part": "CHEST", "description": "Ödem", "rows": 512, "columns": 512}
    digest = digest_of([f"1.3.{number}"])
    made = Row("/data", "1.1", f"1.2.{number}", **about, images=1, bytes=number, digest=digest, files=("a",), skip="")
    return replace(made, **others)


def written(path: Path, rows: list[Row]) -> Path:
    write_table(path, rows, lambda parts: [replace(parts[0], files=tuple(f for part in parts for f in part.files))])
    return path


def test_pyarrow_reads_what_was_written(tmp_path):
    rows = [row(number) for number in range(3 * ROWS + 1)]
    path = written(tmp_path / "new" / "table.parquet", rows)
    assert pq.read_table(path).to_pylist() == [{**asdict(one), "files": ["a"]} for one in rows]
    assert list(read_table(path)) == rows
    assert [file.name for file in path.parent.iterdir()] == ["table.parquet"]


def test_a_table_that_was_filtered_sorted_and_got_columns_is_read(tmp_path):
    path = written(
        tmp_path / "table.parquet", [row(number, modality="CT" if number % 3 else "MR") for number in range(9)]
    )
    table = pq.read_table(path)
    table = table.filter(pc.equal(table["modality"], "MR")).sort_by([("series", "descending")])
    table = table.append_column("note", [["x"] * len(table)])
    pq.write_table(table.select(table.column_names[::-1]), tmp_path / "mine.parquet")
    assert list(read_table(tmp_path / "mine.parquet")) == [row(number, modality="MR") for number in (6, 3, 0)]


def test_what_is_no_such_table_is_refused(tmp_path):
    path = written(tmp_path / "table.parquet", [row(1)])
    pq.write_table(pq.read_table(path).drop_columns(["digest", "files"]), tmp_path / "less.parquet")
    (tmp_path / "text.parquet").write_text("series")
    for name, message in (
        ("less", "lacks the columns digest, files. Keep them"),
        ("text", "cannot be read as a Parquet table"),
        ("none", "There is no table"),
    ):
        with pytest.raises(PyrasegError, match=message):
            list(read_table(tmp_path / f"{name}.parquet"))


def test_rows_of_a_series_become_one_and_others_stay(tmp_path):
    rows = [row(1), row(2, files=("x",)), row(3), row(2, files=("y",)), row(0, series="no-uid:a:1")]
    found = list(read_table(written(tmp_path / "table.parquet", rows)))
    assert sorted(found, key=str) == sorted([rows[0], replace(rows[1], files=("x", "y")), rows[2], rows[4]], key=str)


def test_a_listing_that_ends_half_way_leaves_the_table_as_it_was(tmp_path):
    path = written(tmp_path / "table.parquet", [row(1)])

    def broken() -> Iterator[Row]:
        yield row(2)
        raise PyrasegError("away")

    with pytest.raises(PyrasegError, match="away"):
        write_table(path, broken(), lambda rows: rows)
    assert list(read_table(path)) == [row(1)]
    assert [file.name for file in tmp_path.iterdir()] == ["table.parquet"]


def test_the_parts_are_disjoint_and_together_all():
    rows = [row(number) for number in range(1000)]
    for parts in (1, 2, 7, 64):
        shares = [{one.id for one in rows if in_part(one, (number, parts))} for number in range(1, parts + 1)]
        assert sum(map(len, shares)) == len(set().union(*shares)) == 1000
        assert max(map(len, shares)) < 2 * 1000 / parts + 20


def test_images_are_known_wherever_they_lie_and_other_images_are_others():
    one = row(1)
    moved = replace(one, source="s3://bucket", files=("b", "c"), bytes=5, description="")
    assert moved.id == one.id and len(one.id) == 32
    others = [replace(one, study="1.9"), replace(one, series="1.9"), replace(one, digest=digest_of(["1.3.1", "1.3.2"]))]
    assert len({one.id, *(other.id for other in others)}) == 4
    assert digest_of(["b", "a"]) == sha256(b"a\nb").hexdigest()
