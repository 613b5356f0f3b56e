# SPDX-License-Identifier: Apache-2.0
"""A run does what is due, once, again after what passes, and stops where there is no way; the next one goes on."""

import os
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from bundle.pyraseg_tools.archive import (
    DONE,
    FAILED,
    Access,
    Journal,
    Outcome,
    Progress,
    StoreListing,
    WebListing,
    in_process,
    standing,
    stores,
    work_off,
)
from bundle.pyraseg_tools.archive.run import TRIES
from tests.helpers import orthanc
from tests.helpers.pacs_series import small_series
from tests.helpers.s3_server import BUCKET, bad_way_to, give_way
from tests.tools.archive.conftest import due
from tests.tools.archive.test_listing import upload


@pytest.fixture
def run(job, tmp_path):
    """Return what does a table, with a journal of its own connection, and returns why it stopped and the states."""

    def make(target: object = tmp_path / "results", tell: Callable = lambda line: None, **more: object):
        access = more.pop("access", Access())
        journal = Journal(tmp_path / "j.sqlite", model="m", lease=more.pop("lease", 60))
        table, part = tmp_path / "table.parquet", more.get("part", (1, 1))
        progress = Progress(standing(table, journal, part)["due"], 0, tell, interval=-1)
        with in_process(job(target, access=access)) as engine:
            stopped = work_off(table, journal, engine, progress, pause=0, **more)
        states = standing(table, journal, part)
        journal.close()
        return stopped, states

    return make


@pytest.fixture
def three(tmp_path, listed):
    for number in range(3):
        small_series(tmp_path / "a", f"s{number}", seed=number)
    return listed(tmp_path / "a")


def results(tmp_path: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (tmp_path / "results").rglob("*.dcm")}


def test_a_rerun_does_only_what_is_missing(run, three, tmp_path, listed, caplog):
    torn = small_series(tmp_path / "a", "torn")[0]
    torn.write_bytes(torn.read_bytes()[:-100])
    listed(tmp_path / "a")
    assert run() == ("", {"due": 4, DONE: 3, FAILED: 1})
    assert "slice_000.dcm" in caplog.text and caplog.text.count("failed") == 1 and "Secret" not in caplog.text
    before = results(tmp_path)
    caplog.clear()
    assert run() == ("", {"due": 4, DONE: 3, FAILED: 1}) and results(tmp_path) == before and not caplog.text
    assert run(retry_failed=True)[1][FAILED] == 1 and caplog.text.count("failed") == 1
    small_series(tmp_path / "a", "torn")
    small_series(tmp_path / "a", "new")
    listed(tmp_path / "a")
    assert run(retry_failed=True) == ("", {"due": 5, DONE: 5})
    assert len(results(tmp_path)) == 5 and before.items() <= results(tmp_path).items()


def test_a_lost_journal_is_made_up_from_the_target(run, three, tmp_path):
    run()
    before = results(tmp_path)
    for file in tmp_path.glob("j.sqlite*"):
        file.unlink()
    assert run() == ("", {"due": 3, DONE: 3}) and results(tmp_path) == before


def test_parts_are_together_all(run, three, tmp_path):
    states = [run(part=(number, 2))[1] for number in (1, 2)]
    assert sum(one["due"] for one in states) == sum(one[DONE] for one in states) == len(results(tmp_path)) == 3


def test_what_a_killed_driver_left_is_done_when_its_lease_ends(run, three, tmp_path):
    killed = Journal(tmp_path / "j.sqlite", model="m", lease=0.5)
    assert killed.begin([(row.id, row.series) for row in three[:2]])
    began = time.monotonic()
    assert run(lease=0.5) == ("", {"due": 3, DONE: 3})
    assert time.monotonic() - began > 0.5 and len(results(tmp_path)) == 3


def test_what_another_driver_is_at_is_left_to_it(run, three, tmp_path):
    """It gives signs of life until the end: nothing is done twice, and the rest is said to be open."""
    other = Journal(tmp_path / "j.sqlite", model="m", lease=0.3)
    with other.signs_of_life():
        (mine,) = other.begin([(three[0].id, three[0].series)])
        stopped, states = run(lease=0.3)
    assert not stopped and states == {"due": 3, DONE: 2, "leased": 1} and len(results(tmp_path)) == 2
    other.end(mine, Outcome(DONE, three[0].series))
    assert run() == ("", {"due": 3, DONE: 3})


def test_what_a_store_refuses_for_a_while_is_done_in_the_same_run(
    run, three, tmp_path, store, monkeypatch, listed, wanted
):
    upload(store, tmp_path / "a")
    address = f"s3://{BUCKET}/studies"
    with bad_way_to(store.url) as way:
        give_way(monkeypatch, way.url)
        listed(listing=StoreListing(address, wanted))
        monkeypatch.setattr(stores, "RETRIES", {"max_retries": 0})
        refused: list[str] = []
        way.refuse = lambda method, path: (
            method == "PUT" and path.endswith(".dcm") and len(refused) < 2 and not refused.append(path)
        )
        assert run(f"s3://{BUCKET}/results") == ("", {"due": 3, DONE: 3})
        assert len(refused) == 2 and way.count("PUT", ".dcm") == 5


def test_what_a_store_refuses_for_good_is_tried_some_times(run, tmp_path, store, monkeypatch, listed):
    small_series(tmp_path / "a", "one")
    listed(tmp_path / "a")
    monkeypatch.setattr(stores, "RETRIES", {"max_retries": 0})
    with bad_way_to(store.url) as way:
        give_way(monkeypatch, way.url)
        way.refuse = lambda method, path: method == "PUT"
        assert run(f"s3://{BUCKET}/results") == ("", {"due": 1, "again": 1})
        assert way.count("PUT", "") == TRIES and store.keys() == {}


def test_a_folder_that_goes_away_stops_the_run_and_the_next_goes_on(run, three, tmp_path):
    def away(line: str) -> None:
        if (tmp_path / "a").exists():
            (tmp_path / "a").rename(tmp_path / "away")

    stopped, states = run(tell=away)
    assert "Mount it" in stopped and states == {"due": 3, DONE: 1, "again": 2}
    (tmp_path / "away").rename(tmp_path / "a")
    assert run() == ("", {"due": 3, DONE: 3}) and len(results(tmp_path)) == 3


def test_a_pacs_that_goes_away_stops_the_run_and_the_next_goes_on(run, tmp_path, pacs, listed, wanted):
    for number in range(3):
        pacs.add(small_series(tmp_path / "a", f"s{number}", seed=number))
    with ExitStack() as stack:
        way = stack.enter_context(bad_way_to(pacs.plain_url))
        url = f"{way.url}/dicom-web"
        rows = listed(listing=WebListing(Access().connect(url), {"Modality": "CT"}, wanted))
        assert len(due(rows)) == 3
        stopped, states = run(url, tell=lambda line: stack.close())
        assert stopped and states == {"due": 3, DONE: 1, "again": 2}
        assert orthanc.PASSWORD not in stopped
    assert len(pacs.instances(Modality="SEG")) == 1
    with bad_way_to(pacs.plain_url, port=int(way.url.rpartition(":")[2])):
        assert run(url) == ("", {"due": 3, DONE: 3})
        assert len(pacs.instances(Modality="SEG")) == 3
        for file in tmp_path.glob("j.sqlite*"):
            file.unlink()
        assert run(url) == ("", {"due": 3, DONE: 3})
    assert len(pacs.instances(Modality="SEG")) == 3


def test_a_stop_leaves_nothing_lent(run, three, tmp_path):
    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tell=stop)
    assert not list((tmp_path / "images").iterdir())
    journal = Journal(tmp_path / "j.sqlite", model="m")
    assert len(journal.begin([(row.id, row.series) for row in three])) == 2
    journal.give_back()
    assert run() == ("", {"due": 3, DONE: 3})


def test_the_line_says_how_fast_it_is_and_when_it_ends(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    lines: list[str] = []
    progress = Progress(100, 10, lines.append, interval=0)
    progress.began = time.monotonic() - 360
    progress.told -= 1
    for state in (*[DONE] * 39, "again", FAILED):
        progress.count(Outcome(state, "1.2", found=state == FAILED))
    found = re.fullmatch(r"50 of 100 series, 1 failed, (\d+) an hour, done at (?:[A-Z]\w+ )?(\d\d:\d\d)", str(progress))
    assert found and abs(int(found[1]) - 400) <= 1
    ends = time.time() + 50 / 400 * 3600
    assert found[2] in [time.strftime("%H:%M", time.gmtime(ends + more)) for more in (-60, 0, 60)]
    assert lines and progress.found == 1
    os.environ.pop("TZ")
    time.tzset()
