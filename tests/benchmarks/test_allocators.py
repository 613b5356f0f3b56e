# SPDX-License-Identifier: Apache-2.0
"""The same calls are timed in two processes, and only one of them keeps freed memory."""

import platform
import resource

import numpy as np
import pytest

from benchmarks.allocators import ALLOCATORS, UNTIMED, Calls, interleaved_in_both


def page_faults(log: str) -> Calls:
    """Return two calls that fill much memory, and write how many page faults that took and which of them ran."""

    def fill(name: str) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            np.ones(50_000_000, np.uint8)
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before} {name}\n")

    return {name: lambda name=name: fill(name) for name in ("one", "other")}


def broken() -> Calls:
    raise ValueError("on purpose")


glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")


@pytest.mark.slow
@glibc
def test_only_one_of_two_processes_keeps_its_memory_and_they_take_turns(tmp_path):
    log = tmp_path / "faults.txt"
    found = interleaved_in_both(page_faults, str(log), repeats=2, what="filling")
    assert list(found) == list(ALLOCATORS)
    assert all(list(of_way) == ["other", "one"] or list(of_way) == ["one", "other"] for of_way in found.values())
    assert all(len(values) == 2 and min(values) > 0 for of_way in found.values() for values in of_way.values())

    faults, names = zip(*(line.split() for line in log.read_text().splitlines()), strict=True)
    faults = np.array(faults, int).reshape(UNTIMED + 2, len(ALLOCATORS), 2)  # rounds, processes in turn, calls
    names = np.reshape(names, faults.shape)
    assert (names[:, 0] == names[:, 1]).all() and (names[1:] != names[:-1]).all()  # the order turns
    assert (faults[UNTIMED:, 0] > 500).all() and (faults[UNTIMED:, 1] < 100).all()


@pytest.mark.slow
@glibc
@pytest.mark.parametrize(("make", "variables"), [(broken, {}), (page_faults, {"MALLOC_ARENA_MAX": "2"})])
def test_a_process_that_ends_ends_the_timing(make, variables, monkeypatch, tmp_path, capfd):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match="ended"):
        interleaved_in_both(make, *([str(tmp_path / "log")] if variables else []), repeats=1, what="nothing")
    assert ("MALLOC" if variables else "on purpose") in capfd.readouterr().err
