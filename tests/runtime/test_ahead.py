# SPDX-License-Identifier: Apache-2.0
"""Slices are computed ahead: in order, a few at a time, and with what goes wrong told."""

import threading
import time

import numpy as np
import pytest

from bundle.pyraseg.runtime import main
from bundle.pyraseg.runtime.images import ahead
from tests.helpers.runtime_series import png, series

pytestmark = pytest.mark.slow


def test_results_come_in_order_though_later_ones_are_ready_first():
    def slow(number: int) -> int:
        time.sleep(0.02 * (5 - number % 5))
        return number**2

    assert list(ahead(slow, range(12), threads=3)) == [number**2 for number in range(12)]


def test_no_more_items_are_taken_than_threads_have_work_for():
    taken, running, most = 0, 0, 0
    lock = threading.Lock()

    def items():
        nonlocal taken
        for number in range(20):
            taken += 1
            yield number

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return number

    for count, result in enumerate(ahead(work, items(), threads=2)):
        assert result == count and taken <= count + 3
    assert most == 2


def test_an_error_is_that_of_its_item():
    def work(number: int) -> int:
        if number == 3:
            raise ValueError("slice 3")
        return number

    found = []
    with pytest.raises(ValueError, match="slice 3"):
        found.extend(ahead(work, range(8), threads=2))
    found = ahead(work, range(8), threads=2)
    assert [next(found) for _ in range(3)] == [0, 1, 2]


def test_any_number_of_threads_gives_the_same_labels(models, tmp_path):
    folder = series(tmp_path / "in", "plain")
    for threads in (1, 2, 4):
        assert main([str(models.ct.path), str(folder), str(tmp_path / str(threads)), "--threads", str(threads)]) == 0
    labels = [png(tmp_path / str(threads) / "in_labels") for threads in (1, 2, 4)]
    assert all(np.array_equal(labels[0], other) for other in labels[1:]) and np.ptp(labels[0]) > 0
