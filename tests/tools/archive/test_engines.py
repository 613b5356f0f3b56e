# SPDX-License-Identifier: Apache-2.0
"""The same series in this process and by workers of Ray, some of which are killed."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.archive import (
    DONE,
    FAILED,
    Journal,
    Progress,
    StoreListing,
    in_process,
    on_ray,
    standing,
    work_off,
)
from bundle.pyraseg_tools.archive.engines import MOST_DEATHS, Engine
from bundle.pyraseg_tools.archive.journal import outcomes
from tests.helpers.pacs_series import small_series
from tests.helpers.s3_server import BUCKET, BadWay, bad_way_to, give_way
from tests.tools.archive.conftest import due
from tests.tools.archive.test_listing import upload


def work(engine: Engine, tmp_path: Path, name: str, tell: Callable = lambda line: None) -> dict[str, int]:
    """Do the table with a journal of a name, and return how the series stand."""
    journal = Journal(tmp_path / f"{name}.sqlite", model="m")
    progress = Progress(0, 0, tell, interval=-1)
    assert work_off(tmp_path / "table.parquet", journal, engine, progress, pause=0) == ""
    states = standing(tmp_path / "table.parquet", journal, (1, 1))
    journal.close()
    return dict(states)


def content(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.*") if file.is_file()}


def workers_of(images: Path) -> list[int]:
    """Return the processes that have a folder for images."""
    return [int(folder.name.rpartition("-")[2]) for folder in images.glob("*-*")]


def test_this_process_does_one_after_the_other_and_leaves_no_images(job, tmp_path, listed):
    for number in range(2):
        small_series(tmp_path / "a", f"s{number}", seed=number)
    rows = due(listed(tmp_path / "a"))
    with in_process(job()) as engine:
        assert engine.wait() == [] and engine.has_room()
        engine.give(rows[0])
        assert not engine.has_room() and workers_of(tmp_path / "images") == [os.getpid()]
        ((row, outcome),) = engine.wait()
        assert row == rows[0] and outcome.state == DONE and engine.has_room()
    assert not list((tmp_path / "images").iterdir())


def test_without_ray_the_extra_is_named(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(PyrasegError, match=r'ray is missing. It is in the extra "ray": pip install "pyraseg\[ray\]"'),
        on_ray(job(), workers=2, address=None, seconds=60),
    ):
        pass


@pytest.fixture
def held(tmp_path, store, monkeypatch, listed, wanted) -> Iterator[BadWay]:
    """Return a way to three series in a store, one of which never comes."""
    for number in range(3):
        small_series(tmp_path / "a", f"s{number}", seed=number)
    upload(store, tmp_path / "a")
    listed(listing=StoreListing(f"s3://{BUCKET}/studies", wanted))
    with bad_way_to(store.url) as way:
        give_way(monkeypatch, way.url)
        way.hold = lambda method, path: method == "GET" and "s1/slice_001" in path
        yield way


@pytest.mark.slow
def test_workers_of_ray_make_the_bytes_of_this_process_though_some_are_killed(job, tmp_path, listed):
    pytest.importorskip("ray")
    for number in range(12):
        small_series(tmp_path / "a", f"s{number:02d}", seed=number)
    torn = small_series(tmp_path / "a", "torn")[0]
    torn.write_bytes(torn.read_bytes()[:-100])
    listed(tmp_path / "a")
    with in_process(job(tmp_path / "alone")) as engine:
        assert work(engine, tmp_path, "alone") == {"due": 13, DONE: 12, FAILED: 1}
    ends = []

    def kill(line: str) -> None:
        ends.append(line)
        if len(ends) in (2, 5):
            alive = [one for one in workers_of(tmp_path / "images") if Path(f"/proc/{one}").exists()]
            os.kill(alive[0], signal.SIGKILL)

    with on_ray(job(tmp_path / "ray"), workers=2, address=None, seconds=600) as engine:
        assert engine.workers == 2
        assert work(engine, tmp_path, "ray", kill) == {"due": 13, DONE: 12, FAILED: 1}
    assert len(ends) == 13 + 2  # with those whose workers were killed, which were done again
    alone, ray = content(tmp_path / "alone"), content(tmp_path / "ray")
    assert ray == alone and len(ray) == 24
    assert {one.series for _, _, one in outcomes(tmp_path / "ray.sqlite")} == {
        one.series for _, _, one in outcomes(tmp_path / "alone.sqlite")
    }


@pytest.mark.slow
def test_a_series_that_every_worker_dies_with_is_given_up(job, tmp_path, held):
    pytest.importorskip("ray")
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.1):
            begun = held.count("GET", "s1/slice_001.dcm")
            if begun > len(killed):
                (worker,) = set(workers_of(tmp_path / "images")) - set(killed)
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with on_ray(job(f"s3://{BUCKET}/results"), workers=1, address=None, seconds=600) as engine:
            assert work(engine, tmp_path, "j") == {"due": 3, DONE: 2, FAILED: 1}
    finally:
        over.set()
        thread.join()
    assert len(killed) == MOST_DEATHS
    (failed,) = [one for _, _, one in outcomes(tmp_path / "j.sqlite") if one.state == FAILED]
    assert failed.reason.startswith(f"{MOST_DEATHS} workers ended with it")


@pytest.mark.slow
def test_a_series_that_takes_too_long_is_given_up_and_the_others_are_done(job, tmp_path, held):
    pytest.importorskip("ray")
    began = time.monotonic()
    with on_ray(job(f"s3://{BUCKET}/results"), workers=2, address=None, seconds=20) as engine:
        assert work(engine, tmp_path, "j") == {"due": 3, DONE: 2, FAILED: 1}
    assert time.monotonic() - began < 120
    (failed,) = [one for _, _, one in outcomes(tmp_path / "j.sqlite") if one.state == FAILED]
    assert failed.reason == "took longer than 20 s (--timeout)."
    assert held.count("PUT", ".dcm") == 2


def test_where_no_cluster_is_the_address_is_named(job):
    pytest.importorskip("ray")
    with (
        pytest.raises(PyrasegError, match=r"no way to a cluster at 127.0.0.1:9"),
        on_ray(job(), workers=1, address="127.0.0.1:9", seconds=60),
    ):
        pass


@pytest.mark.slow
def test_a_model_that_no_worker_can_read_ends_the_run_in_words(job, tmp_path, listed):
    pytest.importorskip("ray")
    small_series(tmp_path / "a", "one")
    listed(tmp_path / "a")
    made = job(model_hash="0" * 64)
    with (
        pytest.raises(PyrasegError, match="is another model"),
        on_ray(made, workers=1, address=None, seconds=60) as engine,
    ):
        work(engine, tmp_path, "j")
