# SPDX-License-Identifier: Apache-2.0
"""Do all that is due of a table: lend, give to the engine, keep what became of it."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bundle.pyraseg_tools.archive.engines import Ended, Engine
from bundle.pyraseg_tools.archive.journal import Journal
from bundle.pyraseg_tools.archive.outcome import AGAIN, FAILED, Outcome
from bundle.pyraseg_tools.archive.table import Row, in_batches, in_part, read_table

logger = logging.getLogger(__name__)

#: So often is what failed for a passing reason tried in one run, with a pause before each time, in seconds.
TRIES, PAUSE = 5, 5.0
#: Series that are lent in one transaction; the engine holds far fewer, so it is they that a crash delays.
LENT = 8


@dataclass
class Progress:
    """Count what a run does, and tell of it now and then.

    Attributes:
        due: series of the table that may be due, this run's part.
        before: of these, those that were done or given up before.
        tell: is given a line.
        interval: seconds between two lines.
    """

    due: int
    before: int
    tell: Callable[[str], object]
    interval: float = 10.0
    ended: Counter[str] = field(default_factory=Counter)
    found: int = 0
    began: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Begin to take the time: the workers are there."""
        self.began = self.told = time.monotonic()

    def count(self, outcome: Outcome) -> None:
        """Count the end of a series."""
        self.ended[outcome.state] += outcome.state != AGAIN
        self.found += outcome.found
        if time.monotonic() - self.told > self.interval:
            self.told = time.monotonic()
            self.tell(str(self))

    def __str__(self) -> str:
        """Return how far it is, how fast, and when it ends at that pace."""
        made = self.ended.total()
        hours = max(time.monotonic() - self.began, 1e-9) / 3600
        pace = made / hours
        left = max(self.due - self.before - made, 0)
        line = f"{self.before + made} of {self.due} series, {self.ended[FAILED]} failed, {pace:,.0f} an hour"
        if not made or not left:
            return line
        end = time.time() + 3600 * left / pace
        day = (
            "" if time.localtime(end).tm_yday == time.localtime().tm_yday else time.strftime("%a ", time.localtime(end))
        )
        return f"{line}, done at {day}{time.strftime('%H:%M', time.localtime(end))}"


def work_off(
    table: Path,
    journal: Journal,
    engine: Engine,
    progress: Progress,
    *,
    part: tuple[int, int] = (1, 1),
    retry_failed: bool = False,
    pause: float = PAUSE,
) -> str:
    """Do what is due of a table; what fails for a passing reason is done again after the rest, `TRIES` times.

    Memory does not grow with the table: of its rows, and of the series given to the engine, a few are held at a time.

    Args:
        table: of the archive, see `read_table`.
        journal: what is done, and by whom what is being done.
        engine: does it.
        progress: is told.
        part: of the archive that is done, see `in_part`.
        retry_failed: do what has failed in earlier runs as well.
        pause: seconds between two tries.

    Returns:
        Why it was stopped where there is no way to the source or the target, or "".
    """
    stopped = ""

    def keep(ended: Ended) -> int:
        nonlocal stopped
        for row, outcome in ended:
            journal.end(row.id, outcome)
            progress.count(outcome)
            if outcome.state == FAILED:
                logger.warning("%s: failed, %s", row.series, outcome.reason)
            elif outcome.state == AGAIN:
                logger.warning("%s: not done this time, %s", row.series, outcome.reason)
                stopped = outcome.reason if outcome.no_way else stopped
        return sum(outcome.state == AGAIN for _, outcome in ended)

    progress.begin()
    with journal.signs_of_life():
        try:
            for number in range(TRIES):
                again = 0
                for row in _due(table, journal, part, left=number > 0, retry_failed=retry_failed):
                    while not engine.has_room():
                        again += keep(engine.wait())
                    if stopped:
                        break
                    engine.give(row)
                while ended := engine.wait():
                    again += keep(ended)
                until = journal.others_until()
                if stopped or number == TRIES - 1 or not (again or until):
                    break
                wait = max(pause * bool(again) * 2**number, until + 0.1 - time.time())
                if until > time.time():
                    logger.info("Others are at work on the rest, or were stopped: looking again in %.0f s", wait)
                time.sleep(max(0.0, wait))
        finally:
            journal.give_back()
    return stopped


def _due(table: Path, journal: Journal, part: tuple[int, int], *, left: bool, retry_failed: bool) -> Iterator[Row]:
    """Yield the rows that are lent to this process."""
    for batch in in_batches(_rows(table, part), LENT):
        lent = set(journal.begin([(row.id, row.series) for row in batch], left=left, retry_failed=retry_failed))
        yield from (row for row in batch if row.id in lent)


def standing(table: Path, journal: Journal, part: tuple[int, int]) -> Counter[str]:
    """Return how many series of a part of a table are in which state, and by "due" how many there are."""
    found: Counter[str] = Counter()
    for batch in in_batches(_rows(table, part, files=False)):
        found["due"] += len(batch)
        found += journal.states([row.id for row in batch])
    return found


def _rows(table: Path, part: tuple[int, int], *, files: bool = True) -> Iterator[Row]:
    return (row for row in read_table(table, files=files) if row.digest and not row.skip and in_part(row, part))
