# SPDX-License-Identifier: Apache-2.0
"""Kill a training with SIGKILL again and again, resume it, and get what one that nobody disturbed gets, bit for bit."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bundle.pyraseg_tools.datasets.phantom.study import write_phantom_study
from tests.helpers.balls import write_balls
from tests.helpers.commands import config_files

EPOCHS = 30
KILLS = 10


#: The training of slices and that of volumes in 3-D: their configs and sizes.
KINDS = {
    "slices": (["train.json"], {"samples_per_epoch": 16, "batch_size": 8, "spacing": 5, "slice_size": "[64,64]"}),
    "volumes": (["train.json", "volumes.json"], {"samples_per_epoch": 4, "batch_size": 2, "spacing": "[6,6,6]",
                                                 "patch_size": "[32,32,16]", "channels": "[4,8,16]"}),
}  # fmt: skip


def command(kind: str, study: Path, output_dir: Path, *, num_workers: int) -> list[str]:
    files, sizes = KINDS[kind]
    options = {
        "dataset_dir": study / kind, "cache_dir": study.parent / "cache", "output_dir": output_dir,
        "model_file": output_dir / "model.pt", "num_workers": num_workers, "resume": "true", "epochs": EPOCHS,
        "val_interval": 7, "seed": 3, **sizes,
    }  # fmt: skip
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "training",
        "--config_file",
        config_files(*files),
        *flags,
    ]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kill") / "study"
    write_phantom_study(folder / "slices", patients=8, size=64)
    write_balls(folder / "volumes")
    return folder


@pytest.fixture(scope="module", params=KINDS)
def undisturbed(request, study) -> tuple[str, Path, float]:
    """Return a kind, the folder of a run that nobody disturbed, and the seconds that it took with its slices cached."""
    kind = request.param
    for name in (f"first {kind}", f"undisturbed {kind}"):
        started = time.monotonic()
        done = subprocess.run(
            command(kind, study, study.parent / name, num_workers=0),
            cwd=study.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return kind, study.parent / name, time.monotonic() - started


def assert_nothing_is_corrupt(folder: Path) -> None:
    """Read every file that a run shows, which hidden ones it has not finished are not."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".pt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".csv":
            epochs(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())


def epochs(log: Path) -> list[int]:
    with log.open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def assert_equal(one, other, place: str = "checkpoint") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict | list | tuple):
        assert len(one) == len(other), place
        for key in one if isinstance(one, dict) else range(len(one)):
            assert_equal(one[key], other[key], f"{place} {key}")
    elif "seconds" not in place:
        assert one == other or (one != one and other != other), place


def kill_in_a_write(process: subprocess.Popen, folder: Path, *, nth: int) -> bool:
    """Kill a run while it writes its nth checkpoint; return whether the file was there, unfinished, when it died."""
    seen: set[str] = set()
    while process.poll() is None:
        found = {path.name for path in folder.glob("checkpoints/.epoch_*.tmp")}
        seen |= found
        if len(seen) >= nth and found:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return any((folder / "checkpoints" / name).exists() for name in found)
    return False


def kill_later(process: subprocess.Popen, folder: Path, *, seconds: float) -> None:
    """Kill a run after some time, or once it has written four checkpoints: it must not come to its end."""

    def newest() -> int:
        return max((int(path.stem.removeprefix("epoch_")) for path in folder.glob("checkpoints/epoch_*.pt")), default=0)

    before, deadline = newest(), time.monotonic() + seconds
    while time.monotonic() < deadline and newest() < before + 4:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(study, undisturbed, num_workers, tmp_path):
    kind, whole, seconds = undisturbed
    chance = random.Random(num_workers)
    folder, kills, kills_in_writes = tmp_path / "killed", 0, 0
    while kills < KILLS:
        process = subprocess.Popen(
            command(kind, study, folder, num_workers=num_workers),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if kills % 3 == 2:
            kill_later(process, folder, seconds=chance.uniform(0, 0.8 * seconds))
        else:
            kills_in_writes += kill_in_a_write(process, folder, nth=chance.randint(1, 3))
        assert process.returncode == -signal.SIGKILL, process.stdout.read().decode()
        kills += 1
        if folder.exists():
            assert_nothing_is_corrupt(folder)
    assert kills_in_writes >= 3
    last = subprocess.run(
        command(kind, study, folder, num_workers=num_workers), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert last.returncode == 0, last.stdout + last.stderr
    assert "Resuming after epoch" in last.stdout
    assert epochs(folder / "log.csv") == list(range(1, EPOCHS + 1))
    for name in ("best.pt", "model.pt"):
        assert_equal(torch.load(folder / name, weights_only=True), torch.load(whole / name, weights_only=True))
    found, expected = (
        torch.load(run / "checkpoints" / f"epoch_{EPOCHS:04d}.pt", weights_only=True) for run in (folder, whole)
    )
    for content in (found, expected):
        del content["record"]  # it names the output folder
    assert_equal(found, expected)
