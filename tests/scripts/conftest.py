# SPDX-License-Identifier: Apache-2.0
"""Programs change what is printed in their process; put that back after each test."""

import logging
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def restore_console(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    level = logging.getLogger("monai").level
    yield
    logging.getLogger("monai").setLevel(level)
