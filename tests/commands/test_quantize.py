# SPDX-License-Identifier: Apache-2.0
"""`pyraseg quantize` on the included model."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from bundle.pyraseg.commands import export, quantize
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.workflow import read_config

ROOT = Path(__file__).resolve().parents[2]
TRAINING = [str(ROOT / "configs" / name) for name in ("train.json", "photographs.json", "dermoscopy.json")]
INFERENCE = [
    str(ROOT / "configs" / name)
    for name in ("inference.json", "photographs_inference.json", "dermoscopy_inference.json")
]


def test_the_configs_of_inference_are_found_by_their_names():
    assert [str(path) for path in quantize.inference_configs([Path(name) for name in TRAINING])] == INFERENCE
    assert all(Path(path).is_file() for path in INFERENCE)


def test_without_a_float_network_it_says_what_to_run(tmp_path):
    with pytest.raises(PyrasegError, match=r"no model at .*none.network.onnx. Write it first: pyraseg export"):
        quantize.main([*TRAINING, "--network-file", str(tmp_path / "none.network.onnx")])


@pytest.fixture(scope="module")
def exported(real_data, tmp_path_factory) -> tuple[Path, Path]:
    """Export the model, and take some photographs with a list of their parts; return both folders."""
    folder = tmp_path_factory.mktemp("int8")
    export.main([*INFERENCE, "--output-dir", str(folder / "models")])
    source, data = real_data / "dermoscopy_isic2017", folder / "data"
    names = sorted(path.stem for path in (source / "images").glob("*.jpg"))[:40]
    for part, suffix in (("images", ".jpg"), ("masks", "_segmentation.png")):
        (data / part).mkdir(parents=True)
        for name in names:
            shutil.copy(source / part / f"{name}{suffix}", data / part)
    items = [
        {"image": f"images/{name}.jpg", "label": f"masks/{name}_segmentation.png", "patient": name} for name in names
    ]
    parts = {"training": items[:24], "validation": items[24:36], "test": items[36:]}
    (data / "datalist.json").write_text(json.dumps(parts))
    return folder / "models", data


@pytest.mark.slow
def test_the_model_that_comes_along_passes_the_gate(exported, capsys):
    models, data = exported
    given = ["--dataset-dir", str(data), "--network-file", str(models / "dermoscopy.network.onnx"), "--images", "24"]
    quantize.main([*TRAINING, *given])
    said = capsys.readouterr().out
    assert "on 12 validation cases" in said and "Written: " in said
    sizes = {path.name: path.stat().st_size for path in models.iterdir()}
    assert sizes["dermoscopy.int8.onnx"] < sizes["dermoscopy.onnx"] / 3
    about = {item.key: item.value for item in onnx.load(models / "dermoscopy.int8.onnx").metadata_props}
    assert about["precision"] == "int8" and about["class_names"] == '["background", "lesion"]'
    equal = []
    for file in sorted((data / "images").iterdir())[-4:]:
        photograph = np.array(Image.open(file).resize((300, 200)))[None]
        found = [
            onnxruntime.InferenceSession(models / name).run(["classes"], {"image": photograph})[0]
            for name in ("dermoscopy.onnx", "dermoscopy.int8.onnx")
        ]
        assert found[0].shape == found[1].shape == (1, 200, 300)
        equal.append((found[0] == found[1]).mean())
    assert np.mean(equal) > 0.99


@pytest.mark.slow
def test_a_path_that_prepares_images_otherwise_is_refused(exported):
    models, _ = exported
    config = read_config(INFERENCE, {"slice_size": [128, 128]})
    network = onnx.load(models / "dermoscopy.network.onnx")
    network.metadata_props.add(key="precision", value="int8")
    with pytest.raises(PyrasegError, match=r"preprocess images differently than .*dermoscopy.onnx"):
        quantize.whole_path(network, models / "dermoscopy.onnx", config)


@pytest.mark.slow
def test_ranges_of_dark_images_are_refused_and_the_layers_named(exported, tmp_path, monkeypatch):
    models, data = exported
    network = tmp_path / "dermoscopy.network.onnx"
    shutil.copy(models / network.name, network)
    honest = quantize.training_images
    monkeypatch.setattr(quantize, "training_images", lambda *args: [image / 100 for image in honest(*args)])
    with pytest.raises(PyrasegError, match=r"did not pass: Dice .* Layers that change most .*encoder.*Nothing was wri"):
        quantize.main([*TRAINING, "--dataset-dir", str(data), "--network-file", str(network), "--images", "4"])
    assert [path.name for path in tmp_path.iterdir()] == [network.name]
