# SPDX-License-Identifier: Apache-2.0
"""A folder is held by one process; it is free again when that ends, however it ends."""

import errno
from contextlib import nullcontext

import pytest
from ignite.engine import Engine

from bundle.pyraseg.core import holding
from bundle.pyraseg.core.errors import DiskError, PyrasegError
from bundle.pyraseg.core.holding import at_failure, freeing, held, hold, release
from bundle.pyraseg.training.iterations import ExplainOutOfMemory
from tests.helpers.holder import another, is_taken


def test_a_second_process_is_refused_and_told_who_is_first(tmp_path):
    folder = tmp_path / "run"
    with another(folder) as (process, _):
        with pytest.raises(PyrasegError, match=rf"Another training writes to {folder} \(process {process.pid} on .*\)"):
            hold(folder, "training")
        hold(folder, "evaluation")  # which is other work
        release(folder, "evaluation")
        assert [path.name for path in folder.iterdir()] == [".training.lock"]


@pytest.mark.parametrize("words", [(), ("fork",)], ids=["alone", "with a child that lives on"])
def test_a_killed_process_leaves_no_lock_behind(tmp_path, words):
    with another(tmp_path, *words) as (process, _):
        process.kill()
        process.wait()
        hold(tmp_path, "training")
        release(tmp_path, "training")


def test_a_process_that_ends_leaves_nothing(tmp_path):
    with another(tmp_path / "new" / "run") as (process, _):
        process.communicate("")
        assert process.returncode == 0
    assert not (tmp_path / "new").exists()


def test_a_process_may_hold_a_folder_again(tmp_path):
    for spelling in (tmp_path, tmp_path / ".." / tmp_path.name):
        hold(spelling, "training")
    (tmp_path / "result").touch()
    release(tmp_path, "training")
    release(tmp_path, "training")
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("first", [held, lambda folder, work: nullcontext(hold(folder, work))], ids=["held", "hold"])
def test_who_wants_a_folder_alone_is_refused_within_the_same_process(tmp_path, first):
    with first(tmp_path, "training"):
        with (
            pytest.raises(PyrasegError, match=f"Another training of this process writes to {tmp_path}"),
            held(tmp_path, "training"),
        ):
            pass
        assert is_taken(tmp_path)
        with held(tmp_path, "evaluation"):
            pass
    release(tmp_path, "training")
    assert not is_taken(tmp_path)


def test_a_block_that_raises_frees_its_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), held(tmp_path / "new", "training"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_what_a_block_held_is_free_after_it_and_what_was_held_before_is_not(tmp_path):
    hold(tmp_path / "before", "training")
    with pytest.raises(ZeroDivisionError), freeing():
        hold(tmp_path / "before", "training")
        hold(tmp_path / "new", "training")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["before"] and is_taken(tmp_path / "before")
    release(tmp_path / "before", "training")


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_all_that_is_to_be_done_at_a_failure_is_done_and_the_error_goes_on(error):
    def step(engine, batch):
        raise error

    done, engine = [], Engine(step)
    ExplainOutOfMemory().attach(engine)  # raises, so that ignite calls no handler behind it
    at_failure(engine, lambda: done.append("first"))
    at_failure(engine, lambda: done.append("second"))
    with pytest.raises(error):
        engine.run([0])
    assert done == ["first", "second"]
    with pytest.raises(PyrasegError, match="failed before, and cannot begin again"):  # ignite alone: nothing, no word
        engine.run([0])
    assert done == ["first", "second"]


def test_a_run_that_ends_well_is_no_failure():
    done, engine = [], Engine(lambda engine, batch: batch)
    at_failure(engine, lambda: done.append("failed"))
    assert engine.run([3], max_epochs=2).output == 3 and engine.state.epoch == 2 and done == []


def test_a_disk_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def refuse(file):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(holding, "_lock", refuse)
    hold(tmp_path, "training")
    release(tmp_path, "training")
    assert "has no locks (No locks available): start no other training there" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="Nothing can be written to"):
        hold(tmp_path / "file" / "run", "training")
