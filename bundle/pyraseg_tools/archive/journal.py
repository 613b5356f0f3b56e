# SPDX-License-Identifier: Apache-2.0
"""Which series are done, and who is at work on the others: a file of SQLite that processes of one machine share."""

import json
import logging
import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import DiskError, PyrasegError
from bundle.pyraseg_tools.archive.outcome import AGAIN, DONE, FAILED, Outcome

logger = logging.getLogger(__name__)

#: Seconds that a series is somebody's without a sign of life. The signs come three times as often.
LEASE = 60.0
#: So often is a series begun that has no end: what it does to the process is likely to be its fault.
MOST_BEGUN = 5
#: How a series stands that somebody is at work on.
LEASED = "leased"
_TABLE = """
CREATE TABLE IF NOT EXISTS series (
    model TEXT NOT NULL, id TEXT NOT NULL, state TEXT NOT NULL, owner TEXT, until REAL, begun INTEGER NOT NULL,
    series TEXT NOT NULL, ended REAL, outcome TEXT, PRIMARY KEY (model, id)
) WITHOUT ROWID
"""
_ABOUT = "CREATE TABLE IF NOT EXISTS about (target TEXT NOT NULL)"


class Journal:
    """Lend series to those that ask, and keep what became of each, by the model that did it.

    Every change is a transaction, whole after a crash of the process; after a crash of the machine the last ones may be
    missing, and their series are looked for in the target again. A result is committed once: the first end of a series
    stays. No name of a patient is in it.

    Args:
        path: of the file, on a disk of this machine: SQLite needs its locks.
        model: hash of what segments. Another model begins anew.
        lease: seconds after which a series of somebody who gives no sign of life is lent to others.
        target: address of the results; what is done is so there alone.

    Raises:
        PyrasegError: the file is none that this class wrote, or of results elsewhere.
        DiskError: it cannot be opened or written, there and in all that follows.
    """

    def __init__(self, path: Path, *, model: str, lease: float = LEASE, target: str = "") -> None:
        self.path, self.model, self.lease = path, model, lease
        self.owner = uuid.uuid4().hex
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = connect(path)
        if target:
            self._require_target(target)

    def begin(self, ids: Sequence[tuple[str, str]], *, left: bool = False, retry_failed: bool = False) -> list[str]:
        """Lend those of some series that are due, each to this process alone; return their ids.

        Args:
            ids: id and series UID of each.
            left: lend as well what belongs to somebody who gives no sign of life. What was left so `MOST_BEGUN` times
                is given up as failed. It comes last in a run, lest what ends a process does so before all else is done.
            retry_failed: lend what has failed as well, if this process has not tried it yet.
        """
        now, lent = time.time(), []
        with self._change() as transaction:
            for one, series in ids:
                found = transaction.execute(
                    "SELECT state, until, begun, owner FROM series WHERE model = ? AND id = ?", (self.model, one)
                ).fetchone()
                state, until, begun, owner = found or (AGAIN, 0.0, 0, None)
                again = state == AGAIN or (left and state == LEASED and until < now)
                again |= retry_failed and state == FAILED and owner != self.owner
                if not again:
                    continue
                if state == LEASED and begun >= MOST_BEGUN:
                    reason = f"was begun {begun} times and never ended: it may need more memory than there is."
                    self._end(transaction, one, Outcome(FAILED, series, reason=reason))
                    continue
                begun = begun + 1 if state == LEASED else 1
                transaction.execute(
                    "INSERT INTO series (model, id, state, owner, until, begun, series) VALUES (?, ?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET state = excluded.state, owner = excluded.owner, until = excluded.until, "
                    "begun = excluded.begun, outcome = NULL",
                    (self.model, one, LEASED, self.owner, now + self.lease, begun, series),
                )
                lent.append(one)
        return lent

    def end(self, one: str, outcome: Outcome) -> None:
        """Keep what became of a series; where another process has done it meanwhile, that stays."""
        with self._change() as transaction:
            self._end(transaction, one, outcome)

    def give_back(self) -> None:
        """Let others have what this process has begun and not ended."""
        with self._change() as transaction:
            transaction.execute(
                "UPDATE series SET state = ?, until = 0 WHERE model = ? AND state = ? AND owner = ?",
                (AGAIN, self.model, LEASED, self.owner),
            )

    def states(self, ids: Sequence[str]) -> Counter[str]:
        """Return how many of some series are in which state; those that nobody has begun are in none."""
        marks = ", ".join("?" * len(ids))
        query = f"SELECT state, count(*) FROM series WHERE model = ? AND id IN ({marks}) GROUP BY state"
        return Counter(dict(self._connection.execute(query, (self.model, *ids))))

    def others_until(self) -> float:
        """Return when the last of the series that others are at work on is lent again, if they give no sign of life."""
        query = "SELECT max(until) FROM series WHERE model = ? AND state = ? AND owner != ?"
        return self._connection.execute(query, (self.model, LEASED, self.owner)).fetchone()[0] or 0.0

    @contextmanager
    def signs_of_life(self) -> Generator[None]:
        """Say three times a lease, in a thread of its own, that this process is at work on what it has begun."""
        over = threading.Event()

        def say() -> None:
            own = connect(self.path)
            while not over.wait(self.lease / 3):
                try:
                    own.execute(
                        "UPDATE series SET until = ? WHERE model = ? AND state = ? AND owner = ?",
                        (time.time() + self.lease, self.model, LEASED, self.owner),
                    )
                except sqlite3.OperationalError as error:  # the disk is full for a while, perhaps
                    logger.warning("%s: no sign of life could be written, %s", self.path, error)
            own.close()

        thread = threading.Thread(target=say, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _change(self) -> Generator[sqlite3.Connection]:
        """Yield a transaction that nobody else writes in."""
        try:
            with self._connection as transaction:
                transaction.execute("BEGIN IMMEDIATE")
                yield transaction
        except sqlite3.OperationalError as error:
            raise _disk_error(self.path, error) from error

    def _require_target(self, target: str) -> None:
        with self._change() as transaction:
            transaction.execute(_ABOUT)
            (found,) = transaction.execute("SELECT target FROM about").fetchone() or (None,)
            if found is None:
                transaction.execute("INSERT INTO about VALUES (?)", (target,))
        if found not in (None, target):
            raise PyrasegError(
                f"{self.path} remembers what is done in {found}, and these results go to {target}. Give another "
                "--work-dir; what lies in a target is found there."
            )

    def _end(self, transaction: sqlite3.Connection, one: str, outcome: Outcome) -> None:
        transaction.execute(
            "INSERT INTO series (model, id, state, owner, begun, series, ended, outcome) "
            "VALUES (?, ?, ?, ?, 1, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET state = excluded.state, owner = excluded.owner, ended = excluded.ended, "
            "outcome = excluded.outcome WHERE state != ?",
            (self.model, one, outcome.state, self.owner, outcome.series, time.time(), outcome.text, DONE),
        )


def connect(path: Path) -> sqlite3.Connection:
    """Open a journal, and make it where there is none.

    Raises:
        PyrasegError: the file is of another kind.
        DiskError: it cannot be opened or written.
    """
    try:
        connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise _disk_error(path, error) from error
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_TABLE)
    except sqlite3.DatabaseError as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError):
            raise _disk_error(path, error) from error
        raise PyrasegError(
            f"{path} is no journal of `pyraseg archive`, or damaged. Move it away to start again."
        ) from error
    return connection


def _disk_error(path: Path, error: sqlite3.OperationalError) -> DiskError:
    return DiskError(
        f"The journal {path} cannot be written: {error}. Free some space or choose another --work-dir, on a disk of "
        "this machine."
    )


def outcomes(path: Path) -> Iterator[tuple[str, float, Outcome]]:
    """Yield what a journal has of series that have ended: hash of the model, when (seconds since 1970), and what."""
    connection = connect(path)
    try:
        query = "SELECT model, ended, outcome FROM series WHERE outcome IS NOT NULL ORDER BY ended"
        for model, ended, text in connection.execute(query):
            content: dict[str, Any] = json.loads(text)
            yield model, ended, Outcome(**content)
    finally:
        connection.close()
