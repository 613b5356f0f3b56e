# SPDX-License-Identifier: Apache-2.0
"""An evaluation whose figures and pictures are known."""

from pathlib import Path

import pytest

from tests.reporting.evaluations import evaluate, volume


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """Return the output folder of twelve cases: Dice of the liver falls from case_00 to case_10; case_11 lacks it."""
    root = tmp_path.resolve()
    cases = [
        volume(
            f"case_{number:02d}/ct",
            shift=number // 2,
            lesion={2: "alarm", 3: "missed"}.get(number, ""),
            site="south" if number % 2 else "north",
        )
        for number in range(11)
    ]
    empty = volume("case_11/ct", shift=0)
    empty.truth[:], empty.prediction[:] = 0, 0
    return evaluate(root, [*cases, empty], windows=["soft_tissue"])
