# SPDX-License-Identifier: Apache-2.0
"""What the export refuses, in words, before it computes anything; what it writes: tests/end_to_end/test_onnx.py."""

import json
from pathlib import Path

import onnx
import pytest
import torch

from bundle.pyraseg.commands.export import main
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.core.settings import ModelSettings
from bundle.pyraseg.deployment.onnx_network import OnnxNetwork
from bundle.pyraseg.training.checkpoints import read_model, save_model

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PHANTOM = CONFIGS.parent / "models" / "phantom.pt"
CT = str(CONFIGS / "inference.json")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["none.json"], "There is no config at none.json"),
        ([CT, "--model-file", "none.pt"], "no trained model at none.pt"),
        ([CT, "--spacin", "2"], "nearest name is 'spacing'"),
        ([CT, "--spacing"], "--spacing has no value"),
        ([CT, "--run", "nowhere"], "no record at"),
        ([CT, "--metadata", "none.json"], "no config at none.json"),
    ],
)
def test_what_is_wrong_is_one_message(arguments, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PyrasegError, match=text):
        main([*arguments, "--output-dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--spacing", "5"], "spacing: 2.5 in its training, 5 here"),
        (["--windows", "['lung','soft_tissue','bone']"], "windows: .* in its training"),
        (["--pool_sizes", "[1,2,3,6]"], r"pool_sizes: \[1, 3, 5, 7\] in its training, \[1, 2, 3, 6\] here"),
        (["--class_names", "['background','kidney','lesion','spleen','liver']"], "class_names: .* in its training"),
    ],
)
def test_other_settings_than_the_training_s_are_refused(options, text, tmp_path):
    with pytest.raises(PyrasegError, match=text):
        main([CT, "--model-file", str(PHANTOM), "--output-dir", str(tmp_path), *options])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_called_by_name(value, tmp_path):
    weights, trained = read_model(PHANTOM)
    save_model(weights, tmp_path / "model.pt", settings=ModelSettings(trained, {}))
    weights["head.classifier.1.bias"][1] = value
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(PyrasegError, match=r"model\.pt: 1 weights are NaN or infinite.*'head\.classifier\.1\.bias'"):
        main([CT, "--model-file", str(tmp_path / "model.pt"), "--output-dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_network_that_does_not_say_its_channels(tmp_path):
    base = json.loads(Path(CT).read_text())
    del base["network_def"]["in_channels"]  # as in that of a library which has another name for it
    for file in (tmp_path / "inference.json", tmp_path / "metadata.json"):
        file.write_text(json.dumps(base) if file.stem == "inference" else (CONFIGS / file.name).read_text())
    with pytest.raises(PyrasegError, match=r"PSPNet has no in_channels in its config"):
        main([str(tmp_path / "inference.json"), "--model-file", str(PHANTOM), "--output-dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "license"), [("hippocampus", "CC-BY-SA-4.0"), ("lungs", "Apache-2.0")])
def test_an_exported_model_names_the_license_of_its_weights(task, license, tmp_path):
    stands_on = {"hippocampus": "volumes", "lungs": "photographs"}[task]
    files = [str(CONFIGS / name) for name in (f"{stands_on}_inference.json", f"{task}_inference.json")]
    main([CT, *files, "--output-dir", str(tmp_path)])
    about = {item.key: item.value for item in onnx.load(tmp_path / f"{task}.onnx").metadata_props}
    assert about["license"] == license


def test_an_exported_network_is_held_to_the_settings_of_its_config(tmp_path):
    made = onnx.helper.make_node("Identity", ["image"], ["logits"])
    ends = [[onnx.helper.make_tensor_value_info(name, 1, ["b", 9, "h", "w"])] for name in ("image", "logits")]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([made], "g", *ends), opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    )
    model.metadata_props.add(key="settings", value=json.dumps({"spacing": 2.5}))
    onnx.save(model, tmp_path / "n.onnx")
    OnnxNetwork(tmp_path / "n.onnx", threads=1, settings=ModelSettings({"spacing": 2.50}, {}), remedy="")
    with pytest.raises(PyrasegError, match=r"n\.onnx was trained with other settings than these:\n  spacing: 2.5 in"):
        OnnxNetwork(tmp_path / "n.onnx", threads=1, settings=ModelSettings({"spacing": 2}, {}), remedy="")
