# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every test may use."""

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of public test images, or skip the test where there is none."""
    folder = os.environ.get("PYRASEG_TEST_DATA")
    if not folder:
        pytest.skip("PYRASEG_TEST_DATA is not set: it names the folder of public test images")
    return Path(folder)


@pytest.fixture
def limit_files() -> Iterator[Callable[[int], None]]:
    """Return what lets the system refuse files of more bytes than that, as a full disk does: in the midst of a write.

    A negative number lifts the limit; the end of the test does, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size < 0 else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
