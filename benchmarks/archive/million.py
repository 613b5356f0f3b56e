# SPDX-License-Identifier: Apache-2.0
"""Plan and journal a million series that are made up: seconds, memory and bytes of table and journal."""

import hashlib
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bundle.pyraseg_tools.archive import (
    DONE,
    Journal,
    Outcome,
    Progress,
    Row,
    standing,
    work_off,
    write_summary,
    write_table,
)

SERIES = 1_000_000
#: Images of a series of 512 x 512, and their bytes.
IMAGES, BYTES = 100, 526_000
NAMES = [f"IM{image:04d}.dcm" for image in range(IMAGES)]


def listing(count: int) -> Iterator[Row]:
    """Yield rows as a listing of a folder has them, each with a name for every image."""
    for number in range(count):
        uid = f"1.2.826.0.1.3680043.8.498.{number + 10**30}"
        folder = f"{number // 1000:04d}/{number:07d}/"
        files = tuple([folder + name for name in NAMES])
        digest = hashlib.sha256(uid.encode()).hexdigest()
        about = {"modality": "CT", "body_part": "ABDOMEN", "description": "portal venous", "rows": 512, "columns": 512}
        shape = {"images": IMAGES, "bytes": IMAGES * BYTES}
        yield Row("/archive", f"{uid}.1", uid, **about, **shape, digest=digest, files=files, skip="")


class NothingToDo:
    """End every series at once, so that what is measured is all but the work."""

    workers = 1

    def __init__(self) -> None:
        self.given: list[Row] = []

    def has_room(self) -> bool:
        return len(self.given) < 2

    def give(self, row: Row) -> None:
        self.given.append(row)

    def wait(self) -> list[tuple[Row, Outcome]]:
        given, self.given = self.given, []
        volumes = {"liver": 1500.5, "spleen": 200.25}
        seconds = {"fetching": 1.0, "segmenting": 20.5, "delivering": 0.25}
        about = {"name": "x" * 150, "volumes": volumes, "unlike": 0.5, "seconds": seconds}
        return [(row, Outcome(DONE, row.series, row.images, **about)) for row in given]


def measured(folder: Path, count: int = SERIES) -> dict[str, Any]:
    """Return what it takes; memory is the most that the process ever had."""
    table, journal_file = folder / "table.parquet", folder / "journal.sqlite"
    found: dict[str, Any] = {"series": count, "images of each": IMAGES, "MB before": _memory()}
    clock = _Clock()
    for _ in listing(count):
        pass
    found["making the rows up, which is a part of writing"] = clock.told()
    clock = _Clock()
    write_table(table, listing(count), lambda rows: rows)
    found |= {"writing the table": clock.told(), "MB of the table": _size(table), "MB after the table": _memory()}
    journal = Journal(journal_file, model="0" * 64)
    clock = _Clock()
    standing(table, journal, (1, 1))
    found["looking what is done before"] = clock.told()
    clock = _Clock()
    work_off(table, journal, NothingToDo(), Progress(count, 0, lambda line: None))
    found |= {"lending and keeping all": clock.told(), "MB after the journal": _memory()}
    clock = _Clock()
    work_off(table, journal, NothingToDo(), Progress(count, 0, lambda line: None))
    found["a rerun with nothing to do"] = clock.told()
    clock = _Clock()
    write_summary(folder, table, folder / "summary.html")
    found["summary"] = clock.told()
    journal.close()
    return {**found, "MB of the journal": _size(journal_file), "MB at the end": _memory()}


class _Clock:
    """Tell the seconds since it was made, and those of the processor."""

    def __init__(self) -> None:
        self.began = time.monotonic(), time.process_time()

    def told(self) -> dict[str, float]:
        return {
            "seconds": round(time.monotonic() - self.began[0], 1),
            "of the processor": round(time.process_time() - self.began[1], 1),
        }


def _size(path: Path) -> float:
    return round(path.stat().st_size / 2**20, 1)


def _memory() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
