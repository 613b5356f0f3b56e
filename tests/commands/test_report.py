# SPDX-License-Identifier: Apache-2.0
"""The program that writes a report again, as a user runs it."""

import subprocess
from pathlib import Path

import pytest

from bundle.pyraseg.commands.report import main
from tests.helpers.evaluations import evaluate, volume
from tests.helpers.training_runs import write_log
from tests.helpers.warm import python

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    return evaluate(tmp_path.resolve(), [volume("DOE_JOHN/ct", shift=1), volume("ROE/ct", shift=2)])


def run(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return python("-m", "scripts.report", *map(str, options), cwd=ROOT)


def test_writes_the_page_where_it_is_told(evaluation, tmp_path, capsys):
    capsys.readouterr()
    target = tmp_path / "out" / "page.html"
    options = ["--training", str(write_log(tmp_path / "runs")), "--output", str(target), "--hide-names"]
    main([str(evaluation), *options])
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"is {target}")
    text = target.read_text()
    assert "Learning rates" in text and "case 2" in text and "DOE" not in text
    assert not (evaluation / "report.html").exists()


@pytest.mark.slow
def test_help_and_default_place(evaluation):
    assert "output folder of `evaluating`" in run("--help").stdout
    result = run(evaluation)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("The report (0.0")
    assert result.stdout.splitlines()[-1].endswith(f" MB) is {evaluation / 'report.html'}")


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_wrong_folder_is_one_message(tmp_path, name):
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / name)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "pyraseg: There is no file" in result.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_a_report_that_cannot_be_written_leaves_the_old_one(evaluation, tmp_path):
    (evaluation / "report.html").write_text("old")
    result = run(evaluation, "--training", tmp_path)
    assert result.returncode == 1 and "There is no file" in result.stderr and "Traceback" not in result.stderr
    assert (evaluation / "report.html").read_text() == "old"
