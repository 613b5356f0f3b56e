# SPDX-License-Identifier: Apache-2.0
"""The benchmark of a large volume in 3-D runs, and both programs give the same labels."""

import json
from pathlib import Path

import pytest

from benchmarks.large_volume import main


@pytest.mark.slow
def test_a_small_volume_is_measured(tmp_path: Path) -> None:
    output = tmp_path / "results" / "large_volume.json"
    sizes = ["--size", "96", "24", "--patch-size", "32", "32", "16", "--spacing", "8", "8", "2", "--channels", "4", "8"]
    main([*sizes, "--output", str(output)])
    report = json.loads(output.read_text(encoding="utf-8"))
    assert report["size"] == [96, 96, 24] and report["labels"]["voxels"] == 96 * 96 * 24
    assert [row["program"] for row in report["rows"]] == ["bundle", "runtime"]
    assert all(row["base_mb"] > 50 and row["peak_mb"] > 0 for row in report["rows"])
    assert report["labels"]["classes"] > 2 and report["labels"]["differ"] <= 1e-4 * report["labels"]["voxels"]
