# SPDX-License-Identifier: Apache-2.0
"""The phantom study, written once for all tests of this folder."""

import os
from pathlib import Path

import pytest

from bundle.pyraseg.data.phantom.study import write_phantom_study


@pytest.fixture(scope="session")
def phantom_build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Write the default study; return its folder and the seconds of processor time that it took in all processes."""
    folder = tmp_path_factory.mktemp("phantom") / "study"
    before = os.times()[:4]
    write_phantom_study(folder)
    return folder, sum(os.times()[:4]) - sum(before)


@pytest.fixture(scope="session")
def phantom_study(phantom_build: tuple[Path, float]) -> Path:
    """Return the folder of the default phantom study (24 patients)."""
    return phantom_build[0]
