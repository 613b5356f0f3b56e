# SPDX-License-Identifier: Apache-2.0
"""One trained model, three programs: the bundle in PyTorch, the bundle on ONNX Runtime, and the bare runtime."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import onnx
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from bundle.pyraseg.commands.export import main as export
from bundle.pyraseg.runtime.__main__ import main as segment
from bundle.pyraseg.transforms.postprocessing import write_temperature
from bundle.pyraseg_tools.datasets.phantom.study import write_phantom_study
from tests.helpers.commands import ROOT, config_files, monai_bundle
from tests.helpers.network_tests import randomize_statistics

CT = ("inference.json",)
PHOTOGRAPHS = ("inference.json", "photographs_inference.json", "dermoscopy_inference.json")
ENCODER = "resnet18"  # the quickest to export
SIZES = [(256, 256), (333, 187), (101, 260), (640, 480), (33, 41)]


def untrained(path: Path, configs: tuple[str, ...]) -> Path:
    """Write weights for a network of a config, with statistics as training leaves them."""
    parser = ConfigParser()
    parser.read_config(config_files(*configs) if len(configs) == 1 else [str(ROOT / "configs" / c) for c in configs])
    parser["encoder"] = ENCODER
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def")
    randomize_statistics(network)
    torch.save(network.state_dict(), path)
    return path


def write_onnx(weights: Path, configs: tuple[str, ...], *options: str, encoder: str = ENCODER) -> None:
    paths = [str(ROOT / "configs" / name) for name in configs]
    export([*paths, "--model-file", str(weights), "--encoder", encoder, *options])


def bundle(configs: tuple[str, ...], weights: Path, inputs: Path, output: Path, encoder: str = ENCODER) -> Path:
    done = monai_bundle(
        "run", "inferring", "--config_file", config_files(*configs), "--model_file", str(weights), "--encoder", encoder,
        "--dataset_dir", str(inputs), "--output_dir", str(output), "--outputs", "['labels']", cwd=output.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def compare(first: Path, second: Path, pattern: str) -> list[float]:
    """Return the share of equal pixels for each file; both folders hold the same ones, on the same grids."""
    names = sorted(path.relative_to(first) for path in first.rglob(pattern))
    assert names and names == sorted(path.relative_to(second) for path in second.rglob(pattern))
    shares = []
    for name in names:
        if pattern.endswith(".png"):
            mine, theirs = (np.asarray(Image.open(folder / name)) for folder in (first, second))
        else:
            images = [nib.load(folder / name) for folder in (first, second)]
            np.testing.assert_allclose(images[0].affine, images[1].affine, atol=1e-4)
            mine, theirs = (np.asarray(image.dataobj) for image in images)
        assert mine.shape == theirs.shape and len(np.unique(mine)) > 1
        shares.append(float((mine == theirs).mean()))
    return shares


@pytest.mark.slow
def test_the_phantom_study_is_segmented_alike(tmp_path):
    write_phantom_study(tmp_path / "study", patients=4, size=64)
    for path in [*(tmp_path / "study").rglob("*.json"), *(tmp_path / "study").rglob("labels.nii.gz")]:
        path.unlink()
    weights = untrained(tmp_path / "model.pt", CT)
    write_onnx(weights, CT)
    torch_labels = bundle(CT, weights, tmp_path / "study", tmp_path / "torch")
    onnx_labels = bundle((*CT, "inference_onnx.json"), weights, tmp_path / "study", tmp_path / "onnx")
    model = str(tmp_path / "model.onnx")
    assert segment([model, str(tmp_path / "study"), str(tmp_path / "bare"), "--format", "nifti"]) == 0
    assert min(compare(torch_labels, tmp_path / "bare", "*.nii.gz")) >= 0.999
    assert min(compare(torch_labels, onnx_labels, "*.nii.gz")) >= 0.999


@pytest.mark.slow
def test_photographs_are_segmented_alike_at_their_own_sizes(tmp_path):
    (tmp_path / "in").mkdir()
    random = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        small = Image.fromarray(random.integers(0, 255, (7, 6, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(tmp_path / "in" / f"{number}.{('png', 'jpg')[number % 2]}")
    weights = untrained(tmp_path / "skin.pt", PHOTOGRAPHS)
    write_temperature(weights, 1.8)
    record = {"split": {"hash": "abc123", "training": 7}, "revision": "0f0f0f", "data": {"training": {}}}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    write_onnx(weights, PHOTOGRAPHS, "--run", str(tmp_path / "run"), "--license", "CC-BY-4.0")
    torch_labels = bundle(PHOTOGRAPHS, weights, tmp_path / "in", tmp_path / "torch")
    onnx_labels = bundle((*PHOTOGRAPHS, "inference_onnx.json"), weights, tmp_path / "in", tmp_path / "onnx")
    assert segment([str(tmp_path / "skin.onnx"), str(tmp_path / "in"), str(tmp_path / "bare")]) == 0
    assert min(compare(torch_labels, tmp_path / "bare", "*.png")) >= 0.999
    assert min(compare(torch_labels, onnx_labels, "*.png")) >= 0.999
    about = {item.key: item.value for item in onnx.load(tmp_path / "skin.onnx").metadata_props}
    assert about["temperature"] == "1.8" and about["license"] == "CC-BY-4.0" and about["name"] == "Pyraseg dermoscopy"
    assert json.loads(about["data"]) == record["split"] and about["revision"] == "0f0f0f"
    assert json.loads(about["class_names"]) == ["background", "lesion"]
    assert json.loads(about["recipe"])["size"] == [256, 256]


@pytest.mark.slow
def test_the_model_that_comes_along_on_50_real_photographs(real_data, tmp_path):
    shipped, encoder = ROOT / "models" / "dermoscopy.pt", "tf_efficientnet_lite2"
    if not shipped.is_file():
        pytest.skip("models/dermoscopy.pt is not there")
    shutil.copy(shipped, tmp_path)
    (tmp_path / "in").mkdir()
    photographs = sorted((real_data / "dermoscopy_isic2017" / "images").iterdir())[::40]
    for path in photographs:
        shutil.copy(path, tmp_path / "in")
    for path, size in zip(photographs, SIZES[1:], strict=False):  # the source squashed all to 256 x 256
        Image.open(path).resize(size, Image.Resampling.BICUBIC).save(tmp_path / "in" / f"{path.stem}_resized.png")
    weights = tmp_path / "dermoscopy.pt"
    write_onnx(weights, PHOTOGRAPHS, encoder=encoder)
    torch_labels = bundle(PHOTOGRAPHS, weights, tmp_path / "in", tmp_path / "torch", encoder)
    assert segment([str(tmp_path / "dermoscopy.onnx"), str(tmp_path / "in"), str(tmp_path / "bare")]) == 0
    shares = compare(torch_labels, tmp_path / "bare", "*.png")
    assert len(shares) == 54 and min(shares) >= 0.999
