# SPDX-License-Identifier: Apache-2.0
"""An evaluation whose figures and pictures are known."""

import json
from pathlib import Path

import pytest

from tests.helpers.evaluations import evaluate, large_views, volume


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


@pytest.fixture(scope="session")
def large_evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of 200 cases whose pictures are all those of one large series."""
    root = tmp_path_factory.mktemp("large").resolve()
    names = ["background", "liver", "lesion", "spleen", "kidney"]
    cases = [volume(f"patient_{number:03d}/series", shift=number % 8) for number in range(200)]
    folder = evaluate(root, cases, class_names=names, windows=["soft_tissue"])
    drawn = large_views(0, cases=len(cases))
    pictures = json.loads((folder / "pictures.json").read_text())
    for case in pictures["cases"]:
        case["views"], case["depth"] = drawn["views"], drawn["depth"]
    (folder / "pictures.json").write_text(json.dumps(pictures))
    return folder
