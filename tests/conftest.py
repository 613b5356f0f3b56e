# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of public test images, or skip the test where there is none."""
    folder = os.environ.get("PYRASEG_TEST_DATA")
    if not folder:
        pytest.skip("PYRASEG_TEST_DATA is not set: it names the folder of public test images")
    return Path(folder)
