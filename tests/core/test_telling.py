# SPDX-License-Identifier: Apache-2.0
"""What is odd in a file is told once, and a process that runs for months does not remember it all."""

from bundle.pyraseg.core import tell


def test_told_once_and_remembered_within_bounds(caplog):
    tell.cache_clear()
    for number in range(10_100):
        tell(f"{number}.tif is odd")
    tell("10099.tif is odd")
    assert len(caplog.records) == 10_100
    assert tell.cache_info().currsize == 10_000
