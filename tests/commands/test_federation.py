# SPDX-License-Identifier: Apache-2.0
"""NVFlare's simulator with two sites and two rounds on phantom studies, as a user runs it."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = [
    f"--{key}={json.dumps(value)}"
    for key, value in {
        "encoder": "test_efficientnet",
        "pretrained": False,
        "num_workers": 0,
        "samples_per_epoch": 32,
        "spacing": 5,
        "slice_size": [96, 96],
        "device": "cpu",
        "plan#stages": [
            {"name": "new parts", "epoch_fraction": 0.5, "learning_rates": {"pyramid": 2e-3, "head": 2e-3}},
            {
                "name": "all parts",
                "epoch_fraction": 0.5,
                "learning_rates": {"encoder": 1e-3, "pyramid": 2e-3, "head": 2e-3},
            },
        ],
    }.items()
]


@pytest.fixture(scope="module")
def python() -> str:
    """Return a Python that has NVFlare: this one, or the one that PYRASEG_NVFLARE_PYTHON names."""
    named = os.environ.get("PYRASEG_NVFLARE_PYTHON")
    if named:
        return named
    if importlib.util.find_spec("nvflare") is None:
        pytest.skip("NVFlare is not installed here, and PYRASEG_NVFLARE_PYTHON names no Python that has it")
    return sys.executable


def simulate(python: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "scripts.federated_simulation", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.slow
def test_two_sites_finish_two_rounds(python, tmp_path):
    options = ("--rounds", "2", "--local_epochs", "1", *SETTINGS)
    done = simulate(python, *options, "--output_dir", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"The model of 2 sites after 2 rounds is {tmp_path / 'model.pt'}" in done.stdout
    model = torch.load(tmp_path / "model.pt", weights_only=True)
    last = [tmp_path / f"site-{n}" / "checkpoints" / "epoch_0002.pt" for n in (1, 2)]
    sites = [torch.load(path, weights_only=True)["parts"]["network"] for path in last]
    assert model.keys() == sites[0].keys()
    assert any(not torch.equal(value, sites[1][name]) for name, value in sites[0].items())
    for name, value in model.items():
        mean = (sites[0][name].double() + sites[1][name].double()) / 2
        torch.testing.assert_close(value, mean.to(value.dtype))
    for n in (1, 2):
        with (tmp_path / f"site-{n}" / "log.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["epoch"], row["stage"]) for row in rows] == [("1", "new parts"), ("2", "all parts")]


@pytest.mark.slow
def test_a_site_without_data_is_told_before_anything_runs(python, tmp_path):
    done = simulate(python, "--output_dir", str(tmp_path / "out"), "--datasets", str(tmp_path / "none"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"pyraseg: The data set folder {tmp_path / 'none'} does not exist." in done.stderr
    assert not (tmp_path / "out" / "nvflare").exists()
