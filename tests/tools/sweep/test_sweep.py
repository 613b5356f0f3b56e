# SPDX-License-Identifier: Apache-2.0
"""A sweep of real trainings, killed half-way, run again, and with a setting that cannot be trained."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.balls import write_balls
from tests.helpers.commands import ROOT
from tests.helpers.holder import is_taken

#: The smallest training there is: volumes of a few voxels.
OPTIONS = {
    "class_names": "['background','ball']", "modality": "None", "spacing": "[6,6,6]", "patch_size": "[32,32,16]",
    "channels": "[4,8,16]", "samples_per_epoch": 4, "batch_size": 2, "epochs": 6, "val_interval": 2, "num_workers": 0,
    "previews": 0, "device": "cpu",
}  # fmt: skip


def command(folder: Path, *words: str, rates: str = "0.01,0.0001") -> list[str]:
    given = {"dataset_dir": folder / "study", "cache_dir": folder / "cache", **OPTIONS}
    options = [part for key, value in given.items() for part in (f"--{key}", str(value))]
    swept = ["--seeds", "0", "1", "--set", f"learning_rate={rates}", "--output_dir", str(folder / "out")]
    program = [sys.executable, "-m", "bundle.pyraseg", "sweep", str(ROOT / "configs" / "volumes.json")]
    return [*program, *swept, *options, *words]


def states(folder: Path) -> dict[Path, int]:
    """Return when each file of a run was changed."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_sweep_that_is_killed_goes_on_and_names_what_fails(tmp_path):
    write_balls(tmp_path / "study")
    killed = subprocess.Popen(command(tmp_path), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 600
    while not (begun := list(tmp_path.glob("out/*/seed1/training/checkpoints/epoch_0002.pt"))):
        assert killed.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    second = begun[0].parents[2]
    first = second.parent / "seed0"
    while is_taken(second / "training"):  # its run ends with the sweep
        assert time.monotonic() < until
    assert (first / "result.json").is_file() and not (second / "result.json").exists()
    before = states(first)
    # The rest, and a setting whose steps no float holds.
    done = subprocess.run(
        command(tmp_path, "--parallel", "2", rates="0.01,0.0001,1e38"),
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stdout + done.stderr
    assert "1 of 6 runs are finished, 5 to do" in done.stdout
    assert states(first) == before
    assert "Resuming after epoch" in (second / "log.txt").read_text()
    assert "pyraseg: 2 of 6 runs failed:" in done.stderr
    for failed in tmp_path.glob("out/*/*/failure.json"):
        said = f"learning_rate=1e+38, {failed.parent.name.replace('seed', 'seed ')}: "
        assert said + json.loads(failed.read_text())["reason"] in done.stderr
    assert "best Dice is too good" in done.stdout and "pyraseg evaluate" in done.stdout
    assert not (tmp_path / "models").exists() and not (tmp_path / "runs").exists()
    # The score of the best epoch, computed anew, is what the training's own log says.
    runs = rows(tmp_path / "out" / "runs.csv")
    assert sorted((row["learning_rate"], row["seed"]) for row in runs) == [
        ("0.0001", "0"), ("0.0001", "1"), ("0.01", "0"), ("0.01", "1"),
    ]  # fmt: skip
    for row in runs:
        log = rows(tmp_path / "out" / row["folder"] / "training" / "log.csv")
        assert [int(epoch["epoch"]) for epoch in log] == [1, 2, 3, 4, 5, 6]
        best = max((epoch for epoch in log if epoch["dice"]), key=lambda epoch: float(epoch["dice"]))
        assert float(row["dice"]) == pytest.approx(float(best["dice"]), abs=1e-6)
        assert row["best_epoch"] == best["epoch"]
    for setting in rows(tmp_path / "out" / "settings.csv"):
        own = [float(row["dice"]) for row in runs if row["learning_rate"] == setting["learning_rate"]]
        assert int(setting["seeds"]) == len(own) and setting["planned"] == "2"
        assert setting["dice"] == "" if not own else float(setting["dice"]) == pytest.approx(sum(own) / len(own))
    # Without the setting that failed all is done.
    finished = {path: when for path, when in states(tmp_path / "out").items() if path.parent != tmp_path / "out"}
    again = subprocess.run(command(tmp_path), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "4 of 4 runs are finished, 0 to do" in again.stdout, again.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
