# SPDX-License-Identifier: Apache-2.0
"""The program that compares two evaluations, as a user runs it."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bundle.pyraseg.commands.compare import main
from bundle.pyraseg.commands.contest import verdict
from bundle.pyraseg.core.errors import PyrasegError
from tests.helpers.ball_study import write_ball_study
from tests.helpers.warm import python

ROOT = Path(__file__).resolve().parents[2]
SLICES = ROOT / "benchmarks" / "hippocampus" / "slices.json"


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


@pytest.mark.slow
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


# --- brief trainings ---


@pytest.fixture
def contenders(tmp_path: Path) -> list[str]:
    """Return the arguments of a comparison of slices and volumes, of a study of balls, for 3 s each."""
    study = write_ball_study(tmp_path / "study")
    slices = {"spacing": 1, "slice_size": [32, 32], "batch_size": 4, "pool_sizes": [1, 2], "pretrained": False}
    volumes = {"spacing": [1, 1, 1], "patch_size": [16, 16, 16], "channels": [4, 8], "batch_size": 2}
    for name, overlay in (("slices", slices), ("volumes", volumes)):
        (tmp_path / f"{name}.json").write_text(json.dumps(overlay))
    options = {"dataset_dir": study, "cache_dir": tmp_path / "cache", "class_names": "['background','ball']"}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    files = [str(tmp_path / "slices.json"), str(tmp_path / "volumes.json")]
    return [*files, "--base", str(SLICES), "--minutes", "0.05", "--output", str(tmp_path / "out"), *words]


@pytest.mark.slow
def test_slices_and_volumes_are_trained_alike_and_go_on_after_a_kill(contenders, tmp_path, capsys):
    command = [sys.executable, "-m", "scripts.compare_models", *contenders]
    killed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    costs = tmp_path / "out" / "second" / "cost.json"
    until = time.monotonic() + 300
    while not costs.is_file() and killed.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    first = tmp_path / "out" / "first"
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    spent = json.loads(costs.read_text())
    main(contenders)
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing that was finished is done again
    resumed = json.loads(costs.read_text())
    assert resumed.keys() >= spent.keys() and all(resumed[epoch] == spent[epoch] for epoch in list(spent)[:-1])
    lengths = [json.loads((tmp_path / "out" / place / "length.json").read_text()) for place in ("first", "second")]
    for place, length in zip(("first", "second"), lengths, strict=True):
        with (tmp_path / "out" / place / "log.csv").open() as file:
            assert [int(row["epoch"]) for row in csv.DictReader(file)] == list(range(1, length["epochs"] + 1))
        with (tmp_path / "out" / place / "evaluation" / "scores.csv").open() as file:
            assert {row["case"] for row in csv.DictReader(file)} == {f"validation{n}_image.nii.gz" for n in range(3)}
    out = capsys.readouterr().out
    assert "minutes of the processor" in out and "of the validation part" in out and f"pyraseg train {SLICES}" in out
    with pytest.raises(PyrasegError, match="holds another comparison, with another minutes"):
        main([*contenders, "--minutes", "2"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "3"], "decides epochs itself"),
        (["--metrics", "iou"], "dice among its --metrics"),
        (["--minutes", "0"], "--minutes above 0"),
    ],
)
def test_what_a_comparison_decides_is_refused_as_an_option(contenders, tmp_path, words, message):
    with pytest.raises(PyrasegError, match=message):
        main([*contenders, *words])
    assert not (tmp_path / "out").exists()


def test_options_of_configs_without_minutes_are_refused(evaluations):
    with pytest.raises(PyrasegError, match="give --minutes as well"):
        main([str(evaluations / "first"), str(evaluations / "second"), "--dataset_dir", "data"])


@pytest.mark.parametrize(
    ("low", "high", "ahead", "says"),
    [
        (0.01, 0.05, 0, "a is ahead: mean Dice +0.030 [+0.010, +0.050]"),
        (-0.05, -0.01, 1, "b is ahead: mean Dice +0.030 [+0.010, +0.050]"),
        (-0.07, 0.01, None, "cannot be told apart: a - b, mean Dice -0.030 [-0.070, +0.010]"),
    ],
)
def test_an_interval_that_holds_0_tells_nothing_apart(low, high, ahead, says):
    row = {"class": "mean", "difference": (low + high) / 2, "low": low, "high": high, "patients": 9, "reliable": False}
    found, sentence = verdict(row, ["a", "b"])
    assert found == ahead and says in sentence and "too narrow" in sentence
