# SPDX-License-Identifier: Apache-2.0
"""The dermoscopy task on real photographs, through the real commands, from its configs exported as YAML."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.commands import as_yaml, config_files, monai_bundle

PHOTOGRAPHS = 24


CONFIGS = (
    "train", "photographs", "dermoscopy", "inference", "photographs_inference", "dermoscopy_inference",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Train on some photographs at 96 x 96."""
    work = tmp_path_factory.mktemp("dermoscopy")
    places = {name: work / name for name in ("study", "cache", "runs", "out", "inputs")} | {"model": work / "model.pt"}
    places["configs"] = as_yaml(work / "configs", *CONFIGS)
    source = real_data / "dermoscopy_isic2017"
    for name in ("images", "masks"):
        (places["study"] / name).mkdir(parents=True)
        for path in sorted((source / name).iterdir())[:PHOTOGRAPHS]:
            shutil.copy(path, places["study"] / name)
    run = monai_bundle(
        "run", "training", "--config_file",
        config_files("train.yaml", "photographs.yaml", "dermoscopy.yaml", folder=places["configs"]),
        "--num_workers", "0", "--epochs", "4", "--samples_per_epoch", "32", "--slice_size", "[96,96]",
        "--dataset_dir", str(places["study"]), "--cache_dir", str(places["cache"]),
        "--output_dir", str(places["runs"]), "--model_file", str(places["model"]), cwd=work,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "epoch 1/4 all parts" in run.stdout and "epoch 4/4 all parts" in run.stdout
    return places


def test_photographs_of_every_size_get_masks_of_their_own(trained, tmp_path):
    originals = sorted((trained["study"] / "images").iterdir())
    for name, size in (("wide.png", (333, 187)), ("tall.jpg", (101, 260)), ("same.jpg", (256, 256))):
        trained["inputs"].mkdir(exist_ok=True)
        Image.open(originals[0]).resize(size).save(trained["inputs"] / name)
    run = monai_bundle(
        "run", "inferring", "--slice_size", "[96,96]", "--dataset_dir", str(trained["inputs"]),
        "--output_dir", str(trained["out"]), "--model_file", str(trained["model"]), "--config_file",
        config_files(
            "inference.yaml", "photographs_inference.yaml", "dermoscopy_inference.yaml", folder=trained["configs"]
        ),
        cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    for path in trained["inputs"].iterdir():
        size = Image.open(path).size
        mask = Image.open(trained["out"] / f"{path.stem}.png")
        assert mask.size == size and mask.mode == "L" and set(np.unique(mask)) <= {0, 1}
        overlay = Image.open(trained["out"] / f"{path.stem}_overlay.png")
        assert overlay.width / 3 / size[0] == pytest.approx(max(1, 256 / min(size)), rel=0.02)


@pytest.mark.slow
def test_a_mask_between_black_and_white_needs_a_threshold(trained, tmp_path):
    study = tmp_path / "study"
    shutil.copytree(trained["study"], study)
    mask = sorted((study / "masks").iterdir())
    for path in mask:
        Image.open(path).resize((250, 250), Image.Resampling.BILINEAR).resize((256, 256)).save(path)
    options = [
        "run", "training", "--config_file",
        config_files("train.json", "photographs.json", "dermoscopy.json"),
        "--num_workers", "0",
        "--epochs", "1", "--samples_per_epoch", "16", "--slice_size", "[64,64]", "--dataset_dir", str(study),
        "--cache_dir", str(tmp_path / "cache"), "--output_dir", str(tmp_path / "runs"),
        "--model_file", str(tmp_path / "model.pt"),
    ]  # fmt: skip
    refused = monai_bundle(*options, cwd=tmp_path)
    assert refused.returncode == 1 and "beside 0 and 255" in refused.stderr and "set a threshold" in refused.stderr
    accepted = monai_bundle(*options, "--mask_threshold", "128", cwd=tmp_path)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
