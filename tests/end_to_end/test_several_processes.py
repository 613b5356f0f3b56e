# SPDX-License-Identifier: Apache-2.0
"""torchrun with configs/multi_gpu_train.json: two processes on this machine train what one would."""

import csv
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from bundle.pyraseg_tools.datasets.phantom.study import write_phantom_study
from tests.helpers.balls import write_balls
from tests.helpers.commands import ROOT, config_files, monai_bundle

#: Stages with an unfreezing in mid-run, on an encoder of a few layers.
SMALL = {
    "encoder": "test_efficientnet",
    "pretrained": False,
    "num_workers": 0,
    "spacing": 5,
    "slice_size": [96, 96],
    "epochs": 3,
    "samples_per_epoch": 64,
    "val_interval": 1,
    "plan#stages": [
        {
            "name": "new parts",
            "epoch_fraction": 0.4,
            "patient_fraction": 0.5,
            "learning_rates": {"pyramid": 2e-3, "head": 2e-3},
        },
        {
            "name": "all parts",
            "epoch_fraction": 0.6,
            "learning_rates": {"encoder": 1e-3, "pyramid": 2e-3, "head": 2e-3},
        },
    ],
}
#: Nothing in the network or the loss looks at more than one sample.
SAMPLEWISE = {
    "encoder": "test_efficientnet_gn",
    "network_def#norm": ["group", {"num_groups": 4}],
    "dropout": 0.0,
    "loss#batch": False,
}


#: As `SMALL` and `SAMPLEWISE`, of volumes in 3-D.
VOLUMES = {
    "num_workers": 0,
    "spacing": [6, 6, 6],
    "patch_size": [32, 32, 16],
    "channels": [4, 8, 16],
    "epochs": 3,
    "samples_per_epoch": 8,
    "val_interval": 1,
    "loss#batch": False,
}


def torchrun(*options: str, processes: int = 2, launcher: tuple[str, ...] = ("--standalone",)) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", *launcher, f"--nproc_per_node={processes}"]
    return [*command, "-m", "monai.bundle", "run", "training", *options]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Return a folder with a phantom study of 13 patients, 7 to train and 3 to validate with."""
    folder = tmp_path_factory.mktemp("processes")
    write_phantom_study(folder / "study", patients=13, size=64)
    return folder


def overlay(folder: Path, name: str, *, base: dict[str, object] = SMALL, **content: object) -> tuple[str, ...]:
    """Write an overlay for a run in a folder of its own; return the options of the command."""
    (folder / name).mkdir()
    places = {"cache_dir": folder / "cache", "output_dir": folder / name / "out"}
    places["model_file"] = folder / name / "models" / "model.pt"
    content = {
        "dataset_dir": str(folder / "study"),
        **base,
        **{key: str(path) for key, path in places.items()},
        **content,
    }
    (folder / name / "overlay.json").write_text(json.dumps(content))
    return str(folder / name / "overlay.json"), str(places["output_dir"])


def train_in_two(folder: Path, name: str, *, configs: tuple[str, ...] = ("train.json",), **content: Any) -> Path:
    """Train in two processes, each of which leaves its weights as well; return the output folder."""
    dump = "$torch.save(@network_def.state_dict(), @output_dir + '/rank_' + str(@rank) + '.pt')"
    path, output = overlay(folder, name, **content, **{"+run": [dump]})
    files = [str(ROOT / "configs" / config) for config in (*configs, "multi_gpu_train.json")]
    done = subprocess.run(
        torchrun("--config_file", str([*files, path])), cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("epoch 1/") == 1 and "2 processes, connected by gloo" in done.stdout
    return Path(output)


def log(output: Path) -> list[dict[str, str]]:
    with (output / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the network's weights in a file of weights or a checkpoint."""
    content = torch.load(path, weights_only=True)
    return content["parts"]["network"] if "parts" in content else content


def identical(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.slow
def test_weights_and_statistics_are_identical_at_the_end_and_one_process_writes(study):
    output = train_in_two(study, "batch_norm", batch_size=8)
    assert identical(output / "rank_0.pt", output / "rank_1.pt")
    assert identical(output / "rank_0.pt", output / "checkpoints" / "epoch_0003.pt")
    ours = {"best.pt", "checkpoints", "log.csv", "previews", "run.json", "tensorboard"}
    assert {path.name for path in output.iterdir()} == ours | {"rank_0.pt", "rank_1.pt"}
    assert len(list((output / "previews").iterdir())) == 2 * 3  # two of the three cases are the first process's
    assert [row["epoch"] for row in log(output)] == ["1", "2", "3"]
    assert (output.parent / "models" / "model.pt").read_bytes() == (output / "best.pt").read_bytes()
    assert [path.name for path in (output.parent / "models").iterdir()] == ["model.pt"]


@pytest.mark.slow
def test_losses_and_scores_are_those_of_one_process(study):
    two = train_in_two(study, "two", batch_size=4, **SAMPLEWISE)
    path, one = overlay(study, "one", batch_size=8, **SAMPLEWISE)
    files = str([config_files("train.json"), path])
    done = monai_bundle("run", "training", "--config_file", files, cwd=study)
    assert done.returncode == 0, done.stdout + done.stderr
    losses = [[float(row["loss"]) for row in log(output)] for output in (two, Path(one))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][2] < losses[0][1] < losses[0][0]
    # The scores of three cases, 2 + 1, from the same weights.
    path, output = overlay(study, "scores", **SAMPLEWISE)
    torch.save(weights(two / "checkpoints" / "epoch_0003.pt"), two / "last.pt")
    content = json.loads(Path(path).read_text()) | {"model_file": str(two / "last.pt")}
    content |= {"validate#dataset#data": "$@cases['validation']"}
    for key in ("epochs", "samples_per_epoch", "val_interval", "plan#stages", "loss#batch"):
        content.pop(key)
    Path(path).write_text(json.dumps(content))
    files = str([config_files("train.json"), config_files("evaluate.json"), path])
    done = monai_bundle("run", "evaluating", "--config_file", files, cwd=study)
    assert done.returncode == 0, done.stdout + done.stderr
    with (Path(output) / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["case"] for row in rows}) == 3
    means = []
    for name in ("liver", "lesion", "spleen", "kidney"):
        dice = [float(row["dice"]) for row in rows if row["class"] == name and row["truth_voxels"] != "0"]
        means.append(fmean(dice) if dice else math.nan)
        assert float(log(two)[-1][f"dice/{name}"]) == pytest.approx(means[-1], abs=1e-7, nan_ok=True)
    assert float(log(two)[-1]["dice"]) == pytest.approx(fmean(m for m in means if m == m), abs=1e-7)
    assert fmean(m for m in means if m == m) > 0


@pytest.mark.slow
def test_volumes_in_two_processes_are_those_of_one(study):
    configs = ("train.json", "volumes.json")
    base = {**VOLUMES, "dataset_dir": str(write_balls(study / "balls"))}
    two = train_in_two(study, "volumes in two", configs=configs, base=base, batch_size=2)
    assert identical(two / "rank_0.pt", two / "rank_1.pt")
    path, one = overlay(study, "volumes in one", base=base, batch_size=4)
    done = monai_bundle("run", "training", "--config_file", str([*map(config_files, configs), path]), cwd=study)
    assert done.returncode == 0, done.stdout + done.stderr
    losses, scores = (
        [[float(row[key]) for row in log(output)] for output in (two, Path(one))] for key in ("loss", "dice")
    )
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


@pytest.mark.slow
def test_an_early_stop_reaches_both(study):
    content = {
        **SAMPLEWISE,
        "plan#stages": [{"name": "still", "epoch_fraction": 1.0, "learning_rates": {"head": 1e-12}}],
    }
    output = train_in_two(study, "stopped", batch_size=8, epochs=5, patience=1, samples_per_epoch=16, **content)
    assert [row["epoch"] for row in log(output)] == ["1", "2"]  # the second epoch is no better than the first
    assert identical(output / "rank_0.pt", output / "rank_1.pt")


@pytest.mark.slow
def test_a_killed_training_of_two_is_resumed_bit_for_bit(study):
    content = {"batch_size": 4, "epochs": 4}
    whole = train_in_two(study, "whole", **content)
    path, output = overlay(study, "killed", **content)
    files = str([str(ROOT / "configs" / config) for config in ("train.json", "multi_gpu_train.json")] + [path])
    run = subprocess.Popen(
        torchrun("--config_file", files), cwd=study, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    waited = time.monotonic() + 120
    while not Path(output, "checkpoints", "epoch_0002.pt").exists():
        assert time.monotonic() < waited and run.poll() is None
        time.sleep(0.05)
    *_, last = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(last), signal.SIGKILL)
    errors = run.communicate(timeout=60)[1]  # the launcher ends the other process
    assert run.returncode != 0 and b"SIGKILL" in errors and b"pyraseg: " not in errors
    assert not Path(output, "checkpoints", "epoch_0004.pt").exists()
    done = subprocess.run(
        torchrun("--config_file", files, "--resume", "true"), cwd=study, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Resuming after epoch") == 1
    assert identical(Path(output, "checkpoints", "epoch_0004.pt"), whole / "checkpoints" / "epoch_0004.pt")
    assert [row["epoch"] for row in log(Path(output))] == ["1", "2", "3", "4"]
    assert [row["loss"] for row in log(Path(output))] == [row["loss"] for row in log(whole)]


@pytest.mark.slow
def test_two_machines_meet(study):
    """Two launchers, one process each, as on two machines."""
    path, output = overlay(study, "machines", batch_size=8, epochs=1)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    meeting = ("--nnodes=2", "--rdzv_backend=c10d", f"--rdzv_endpoint=localhost:{port}", "--rdzv_id=test")
    files = str([str(ROOT / "configs" / config) for config in ("train.json", "multi_gpu_train.json")] + [path])
    command = torchrun("--config_file", files, processes=1, launcher=meeting)
    machines = [subprocess.Popen(command, cwd=study, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    texts = [machine.communicate(timeout=200)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0]
    assert sum("2 processes, connected by gloo" in text for text in texts) == 1
    assert Path(output, "best.pt").is_file() and len(log(Path(output))) == 1


@pytest.mark.slow
def test_what_a_user_can_mend_is_told_once(study):
    files = str([str(ROOT / "configs" / config) for config in ("train.json", "multi_gpu_train.json")])
    options = ("--config_file", files, "--dataset_dir", str(study / "nowhere"), "--output_dir", str(study / "nothing"))
    done = subprocess.run(torchrun(*options), cwd=study, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert (
        done.stderr.count("pyraseg: ") == 1
        and "nowhere does not exist. Give the folder of a data set with --dataset_dir" in done.stderr
    )
    assert done.stderr.count("Traceback") == 1 and "ChildFailedError" in done.stderr  # torchrun's own
    assert not (study / "nothing").exists()
