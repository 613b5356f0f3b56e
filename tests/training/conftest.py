# SPDX-License-Identifier: Apache-2.0
"""Trainings whose scores are known beforehand."""

from collections.abc import Callable

import pytest

from tests.helpers.threshold_run import ThresholdRun


@pytest.fixture
def threshold_run(tmp_path) -> Callable[..., ThresholdRun]:
    """Return a function that runs such a training in a folder for all tests of one test function."""
    return lambda **options: ThresholdRun(tmp_path / "run", **options).run()
