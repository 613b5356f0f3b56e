# SPDX-License-Identifier: Apache-2.0
"""The program that compares two evaluations, as a user runs it."""

import csv
from pathlib import Path

import pytest

from bundle.pyraseg.commands.compare import main
from bundle.pyraseg.core.errors import PyrasegError
from tests.helpers.warm import python

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def evaluations(tmp_path: Path) -> Path:
    """Return two evaluations of 24 patients, the first of which has 0.05 more Dice."""
    for folder, gain in (("first", 0.05), ("second", 0.0)):
        (tmp_path / folder).mkdir()
        lines = [f"c{n},liver,{0.5 + n / 100 + gain:.3f},{0.3 + n / 100 + gain:.3f},9,p{n}" for n in range(24)]
        header = "case,class,dice,iou,truth_voxels,patient"
        (tmp_path / folder / "scores.csv").write_text("\n".join([header, *lines]) + "\n")
    return tmp_path


def test_prints_and_writes_the_differences(evaluations, capsys):
    output = evaluations / "out" / "comparison.csv"
    main([str(evaluations / "first"), str(evaluations / "second" / "scores.csv"), "--output", str(output)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["dice", "liver", "+0.050", "[+0.050,", "+0.050]", "24", "24", "0"]
    assert lines[2].split()[:3] == ["iou", "liver", "+0.050"]
    assert lines[-1].endswith(f"are in {output}")
    with output.open(newline="") as file:
        assert [float(row["difference"]) for row in csv.DictReader(file)] == pytest.approx([0.05, 0.05])


def test_where_no_patients_are_named_none_are_counted(evaluations, capsys):
    (evaluations / "first" / "summary.json").write_text('{"unit": "cases"}')
    main([str(evaluations / "first"), str(evaluations / "second"), "--output", str(evaluations / "comparison.csv")])
    header, dice, *_ = capsys.readouterr().out.splitlines()
    assert "patients" not in header and dice.split()[-2:] == ["24", "0"]


def test_what_is_wrong_is_one_message(evaluations):
    result = python("-m", "scripts.compare_models", str(evaluations / "first"), str(evaluations / "none"), cwd=ROOT)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "pyraseg: There is no file" in result.stderr


def test_the_comparison_replaces_none_of_the_evaluations(evaluations, monkeypatch):
    monkeypatch.chdir(evaluations / "first")
    before = Path("scores.csv").read_text()
    with pytest.raises(PyrasegError, match="is an input of this run"):
        main(["../first", str(evaluations / "second"), "--output", "../second/../first/scores.csv"])
    assert Path("scores.csv").read_text() == before
