# SPDX-License-Identifier: Apache-2.0
"""A package downloaded to another place does there what the repository does here."""

import csv
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.commands import config_files, monai_bundle
from tests.helpers.drawn_photographs import draw
from tests.helpers.packages import VERSION, Package
from tests.helpers.web_site import Site, serve

NAME = "pyraseg_dermoscopy"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    for seed in range(12):
        draw(folder, seed, [(120, 90), (64, 100), (256, 256)][seed % 3])
    return folder


@pytest.fixture(scope="module")
def downloaded(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that MONAI's own download leaves; its code says where it is."""
    folder = tmp_path_factory.mktemp("bundles")
    with serve(Site(files={f"/{package.zip.name}": package.zip.read_bytes()})) as site:
        run = monai_bundle(
            "download", "--name", NAME, "--url", f"{site.url}/{package.zip.name}", "--bundle_dir", str(folder),
            "--progress", "False", cwd=folder,
        )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    found = {path.relative_to(folder / NAME).as_posix() for path in (folder / NAME).rglob("*") if path.is_file()}
    assert found == set(package.files)
    running = folder / NAME / "bundle" / "pyraseg" / "workflow" / "running.py"
    running.write_text(running.read_text() + "\nprint('the code of', __file__)\n")
    return folder / NAME


# PYTHONPATH stands for an environment in which the package alone is installed: MONAI puts a bundle's root on the path
# of Python only after `initialize` has imported pyraseg from wherever it is found.


@pytest.mark.slow
def test_the_same_masks(study, downloaded, tmp_path, monkeypatch):
    settings = ["--dataset_dir", str(study / "images"), "--device", "cpu", "--outputs", "['labels']"]
    here = monai_bundle(
        "run", "inferring", "--config_file",
        config_files("inference.json", "photographs_inference.json", "dermoscopy_inference.json"),
        *settings,
        "--output_dir", str(tmp_path / "here"), cwd=tmp_path,
    )  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", str(downloaded))
    there = monai_bundle(
        "run", "inferring", "--config_file", str(downloaded / "configs" / "inference.json"), *settings,
        "--output_dir", str(tmp_path / "there"), cwd=tmp_path,
    )  # fmt: skip
    assert here.returncode == there.returncode == 0, here.stderr + there.stderr
    assert "installed and runs" not in there.stdout
    assert f"the code of {downloaded}" in there.stdout and "the code of" not in here.stdout
    masks = sorted(path.name for path in (tmp_path / "here").glob("*.png"))
    assert masks == sorted(f"c{seed}.png" for seed in range(12))
    marked = 0
    for name in masks:
        one, other = (np.asarray(Image.open(tmp_path / side / name)) for side in ("here", "there"))
        np.testing.assert_array_equal(one, other)
        marked += one.any()
    assert marked >= 6


@pytest.mark.slow
def test_another_version_that_is_installed_is_told(study, downloaded, tmp_path):
    root = tmp_path / NAME
    shutil.copytree(downloaded, root)
    metadata = root / "configs" / "metadata.json"
    metadata.write_text(metadata.read_text().replace(f'"version": "{VERSION}"', '"version": "0.0.1"'))
    shutil.copy(study / "images" / "c1.jpg", tmp_path)
    run = monai_bundle(
        "run", "inferring", "--config_file", str(root / "configs" / "inference.json"), "--dataset_dir",
        str(tmp_path / "c1.jpg"), "--output_dir", str(tmp_path / "out"), cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert f"is of pyraseg 0.0.1, but {version('pyraseg')} is installed and runs" in run.stdout


@pytest.mark.slow
def test_the_same_scores(study, downloaded, tmp_path, monkeypatch):
    settings = ["--dataset_dir", str(study), "--device", "cpu", "--num_workers", "0", "--resamples", "100"]
    here = monai_bundle(
        "run", "evaluating", "--config_file",
        config_files("train.json", "photographs.json", "dermoscopy.json", "evaluate.json"),
        *settings,
        "--output_dir", str(tmp_path / "here"), "--cache_dir", str(tmp_path / "cache"), cwd=tmp_path,
    )  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", str(downloaded))
    there = monai_bundle(
        "run", "evaluating", "--config_file", str(downloaded / "configs" / "evaluate.json"), *settings,
        "--output_dir", str(tmp_path / "there"), "--cache_dir", str(tmp_path / "cache"), cwd=tmp_path,
    )  # fmt: skip
    assert here.returncode == there.returncode == 0, here.stderr + there.stderr
    assert f"the code of {downloaded}" in there.stdout
    one, other = (list(csv.reader((tmp_path / side / "scores.csv").open())) for side in ("here", "there"))
    assert one == other and len(one) > 2


@pytest.mark.slow
def test_monai_accepts_it(downloaded, tmp_path):
    options = ["--config_file", str(downloaded / "configs" / "inference.json")]
    options += ["--meta_file", str(downloaded / "configs" / "metadata.json")]
    verified = monai_bundle("verify_net_in_out", "network_def", *options, cwd=downloaded)
    assert verified.returncode == 0, verified.stderr
    exported = monai_bundle(
        "ckpt_export", "network_def", *options, "--ckpt_file", str(downloaded / "models" / "model.pt"), "--filepath",
        str(tmp_path / "model.ts"), cwd=downloaded,
    )  # fmt: skip
    assert exported.returncode == 0, exported.stderr
    assert torch.jit.load(tmp_path / "model.ts")(torch.zeros(1, 3, 64, 96)).shape == (1, 2, 64, 96)


@pytest.mark.slow
def test_it_trains_there_and_keeps_the_shipped_model(study, downloaded, package, tmp_path, monkeypatch):
    root = tmp_path / NAME
    shutil.copytree(downloaded, root)
    monkeypatch.setenv("PYTHONPATH", str(root))
    run = monai_bundle(
        "run", "training", "--config_file", str(root / "configs" / "train.json"), "--dataset_dir", str(study),
        "--epochs", "2", "--samples_per_epoch", "16", "--slice_size", "[64,64]", "--num_workers", "0",
        "--device", "cpu", cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"the code of {root}" in run.stdout and "epoch 2/2" in run.stdout
    (replaced,) = (root / "models" / "replaced").iterdir()
    assert replaced.read_bytes() == package.files["models/model.pt"] != (root / "models" / "model.pt").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {NAME}
