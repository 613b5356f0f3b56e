# SPDX-License-Identifier: Apache-2.0
"""Programs change what is printed in their process; put that back after each test."""

import logging
import sys
from collections.abc import Iterator

import pytest

CHANGED = ("monai", "bundle")


@pytest.fixture(autouse=True)
def restore_console(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    levels = {name: logging.getLogger(name).level for name in CHANGED}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
