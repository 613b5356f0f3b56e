# SPDX-License-Identifier: Apache-2.0
"""The journal, read by plain SQLite and shared by real processes."""

import json
import multiprocessing
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest

from bundle.pyraseg.core import DiskError, PyrasegError
from bundle.pyraseg_tools.archive import AGAIN, DONE, FAILED, Journal, Outcome
from bundle.pyraseg_tools.archive.journal import MOST_BEGUN, outcomes

IDS = [(f"{number:032x}", f"1.2.{number}") for number in range(120)]


def states(path: Path) -> dict[str, str]:
    with sqlite3.connect(path) as connection:
        return dict(connection.execute("SELECT id, state FROM series"))


def take_all(path: Path, found: multiprocessing.Queue) -> None:
    """Lend and end, a few at a time, until nothing is due; tell what was lent."""
    journal, mine = Journal(path, model="m"), []
    for start in range(0, len(IDS), 4):
        lent = journal.begin(IDS[start : start + 4])
        mine += lent
        for one in lent:
            journal.end(one, Outcome(DONE, "1.2"))
    found.put(mine)


def test_processes_share_a_journal_and_none_does_what_another_does(tmp_path):
    fork = multiprocessing.get_context("fork")
    found = fork.Queue()
    processes = [fork.Process(target=take_all, args=(tmp_path / "j.sqlite", found)) for _ in range(3)]
    for process in processes:
        process.start()
    lent = [one for _ in processes for one in found.get(timeout=60)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert Counter(lent) == Counter(one for one, _ in IDS)
    assert states(tmp_path / "j.sqlite") == {one: DONE for one, _ in IDS}


def test_what_somebody_is_at_is_lent_again_only_without_a_sign_of_life(tmp_path):
    path = tmp_path / "j.sqlite"
    one, other = Journal(path, model="m", lease=0.3), Journal(path, model="m", lease=0.3)
    first = IDS[:1]
    with one.signs_of_life():
        assert one.begin(first) == [first[0][0]]
        ends = time.monotonic() + 0.8
        while time.monotonic() < ends:
            assert other.begin(first, left=True) == []
            time.sleep(0.05)
        assert other.others_until() > time.time() > one.others_until()
    time.sleep(0.4)
    assert other.begin(first) == [] and other.begin(first, left=True) == [first[0][0]]
    assert one.others_until() > time.time()


def test_what_was_given_back_is_lent_at_once(tmp_path):
    one, other = (Journal(tmp_path / "j.sqlite", model="m") for _ in range(2))
    lent = one.begin(IDS[:3])
    one.end(lent[0], Outcome(DONE, "1.2"))
    one.give_back()
    assert other.begin(IDS[:3]) == lent[1:]


def test_what_ends_every_process_is_given_up(tmp_path):
    path = tmp_path / "j.sqlite"
    for _ in range(MOST_BEGUN):
        assert Journal(path, model="m", lease=0).begin(IDS[:1], left=True)
        time.sleep(0.01)
    assert Journal(path, model="m", lease=0).begin(IDS[:1], left=True) == []
    ((_, _, outcome),) = outcomes(path)
    assert outcome.state == FAILED and outcome.series == "1.2.0" and f"begun {MOST_BEGUN} times" in outcome.reason


def test_the_first_result_stays_and_a_failure_does_not(tmp_path):
    one, other = (Journal(tmp_path / "j.sqlite", model="m") for _ in range(2))
    (name,) = one.begin(IDS[:1])
    other.end(name, Outcome(FAILED, "1.2", reason="too slow"))
    one.end(name, Outcome(DONE, "1.2", name="first"))
    other.end(name, Outcome(FAILED, "1.2", reason="later"))
    other.end(name, Outcome(DONE, "1.2", name="second"))
    ((_, _, outcome),) = outcomes(tmp_path / "j.sqlite")
    assert outcome == Outcome(DONE, "1.2", name="first")


def test_what_failed_is_tried_again_once_by_those_who_are_told_to(tmp_path):
    one = Journal(tmp_path / "j.sqlite", model="m")
    (name,) = one.begin(IDS[:1])
    one.end(name, Outcome(FAILED, "1.2"))
    assert one.begin(IDS[:1]) == one.begin(IDS[:1], retry_failed=True) == []
    other = Journal(tmp_path / "j.sqlite", model="m")
    assert other.begin(IDS[:1]) == [] and other.begin(IDS[:1], retry_failed=True) == [name]
    other.end(name, Outcome(AGAIN, "1.2", reason="away"))
    assert one.begin(IDS[:1]) == [name]


def test_another_model_begins_anew(tmp_path):
    for model in ("m", "n"):
        journal = Journal(tmp_path / "j.sqlite", model=model)
        (name,) = journal.begin(IDS[:1])
        journal.end(name, Outcome(DONE, "1.2"))
        assert journal.states([name]) == {DONE: 1} and journal.states(["0"]) == {}
    assert [model for model, _, _ in outcomes(tmp_path / "j.sqlite")] == ["m", "n"]


def test_what_is_done_is_so_in_one_target(tmp_path):
    Journal(tmp_path / "j.sqlite", model="m", target="/a").close()
    Journal(tmp_path / "j.sqlite", model="n", target="/a").close()
    with pytest.raises(PyrasegError, match=r"done in /a, and these results go to /b. Give another --work-dir"):
        Journal(tmp_path / "j.sqlite", model="m", target="/b")


def test_outcomes_are_plain_json(tmp_path):
    journal = Journal(tmp_path / "j.sqlite", model="m")
    outcome = Outcome(DONE, "1.2", volumes={"liver": 1.5}, unlike=0.5, seconds={"fetching": 0.1})
    journal.end("a", outcome)
    with sqlite3.connect(journal.path) as connection:
        assert connection.execute("SELECT json_extract(outcome, '$.volumes.liver') FROM series").fetchone() == (1.5,)
        ((text,),) = connection.execute("SELECT outcome FROM series")
    assert json.loads(text)["seconds"] == {"fetching": 0.1}


def test_what_is_no_journal_is_refused(tmp_path):
    (tmp_path / "text.sqlite").write_text("this is no database, and longer than its header: " * 9)
    with pytest.raises(PyrasegError, match="no journal of `pyraseg archive`") as error:
        Journal(tmp_path / "text.sqlite", model="m")
    assert not isinstance(error.value, DiskError)
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(DiskError, match="cannot be written: unable to open"):
        Journal(tmp_path / "folder.sqlite", model="m")


def test_a_full_disk_is_said_and_what_was_there_is_whole(tmp_path, limit_files):
    journal = Journal(tmp_path / "j.sqlite", model="m")
    lent = journal.begin(IDS[:2])
    journal.end(lent[0], Outcome(DONE, "1.2"))
    limit_files(4096)
    with pytest.raises(DiskError, match=r"The journal .* cannot be written: .*Free some space"):
        for _ in range(100):
            journal.end(lent[1], Outcome(FAILED, "1.2", reason="x" * 4000))
    limit_files(-1)
    assert states(journal.path)[lent[0]] == DONE
    journal.end(lent[1], Outcome(DONE, "1.2"))
    assert states(journal.path) == dict.fromkeys(lent, DONE)
