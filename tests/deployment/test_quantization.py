# SPDX-License-Identifier: Apache-2.0
"""A network in int8: what becomes integers, what stays in float, and which form passes the gate."""

import copy

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer
from onnxruntime.quantization import quantize_dynamic
from torch import nn

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.deployment.exporting import describe, network_model
from bundle.pyraseg.deployment.gate import judge
from bundle.pyraseg.deployment.onnx_network import OnnxNetwork
from bundle.pyraseg.deployment.quantization import Quantizer, classes, quantize, require_content
from tests.helpers.onnx_paths import network


@pytest.fixture(scope="module")
def float_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "float.network.onnx"
    onnx.save(ir.to_proto(describe(network_model(network(3), 3), {})), path)
    return path


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return [random.normal(size=(1, 3, 40, 50)).astype(np.float32) for _ in range(6)]


def integers(model: onnx.ModelProto) -> set[str]:
    """Return the weights of a model that are stored as int8."""
    names = [item.name for item in model.graph.initializer if item.data_type == onnx.TensorProto.INT8]
    return {name.removesuffix("_quantized") for name in names if name.endswith("_quantized")}


def test_weights_become_bytes_and_any_size_is_computed(float_file, images):
    found = quantize(float_file, images, images, enough=0)
    assert integers(found.model) == {"first.weight", "last.weight"} and found.in_float == () and found.costs == {}
    other = [np.random.default_rng(1).normal(size=(2, 3, 33, 70)).astype(np.float32)]
    (expected,), (mine,) = classes(onnx.load(float_file), other), classes(found.model, other)
    assert mine.shape == expected.shape == (2, 33, 70)
    assert (mine == expected).mean() > 0.95
    assert 0.95 < found.agreement < 1


def test_scales_are_those_of_the_channels_and_of_the_measured_ranges(float_file, images):
    model = quantize(float_file, images, images, enough=0).model
    values = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    weights = network(3).first.weight.detach().numpy()
    largest = np.abs(weights).max(axis=(1, 2, 3))
    np.testing.assert_allclose(values["first.weight_scale"], largest / 127, rtol=0.01)
    low, high = min(image.min() for image in images), max(image.max() for image in images)
    np.testing.assert_allclose(values["image_scale"], (high - low) / 255, rtol=1e-5)


def test_layers_left_in_float_keep_their_weights(float_file, images, tmp_path):
    quantizer = Quantizer(float_file, images, tmp_path)
    assert quantizer.layers == ["first", "last"]
    assert integers(quantizer(in_float=["last"])) == {"first.weight"}
    assert integers(quantizer(in_float=quantizer.layers)) == set()
    assert integers(quantizer(only="last")) == {"last.weight"}


def test_layers_around_a_range_in_which_the_rest_drowns_stay_in_float(tmp_path, images):
    layers = [nn.Conv2d(3, 3, 1) for _ in range(5)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(torch.eye(3)[:, :, None, None])
            layer.bias.zero_()
        layers[2].weight[2] *= 3000  # what it gives, and the next one takes, has one channel of another size
        layers[3].weight[:, 2] /= 3000
    path = tmp_path / "five.network.onnx"
    onnx.save(ir.to_proto(describe(network_model(nn.Sequential(*layers).eval(), 3), {})), path)
    all_int8 = quantize(path, images, images, enough=0)
    found = quantize(path, images, images, enough=0.97)
    assert all_int8.agreement < 0.9 and found.agreement >= 0.97
    assert set(found.in_float) == set(list(found.costs)[:2]) == {"2", "3"}
    assert found.costs["2"] > 0.1 > 10 * found.costs["0"]


def test_dynamic_quantization_does_not_touch_convolutions_of_pytorch():
    original = network(3)
    with pytest.warns(DeprecationWarning):
        found = torch.ao.quantization.quantize_dynamic(copy.deepcopy(original), {nn.Conv2d}, dtype=torch.qint8)
    assert all(type(layer) is nn.Conv2d for layer in (found.first, found.last))
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), original.parameters(), strict=True))


def test_images_without_content_are_refused():
    with pytest.raises(PyrasegError, match="2 images without any content"):
        require_content([np.zeros((1, 3, 8, 8), np.float32), np.ones((1, 3, 8, 8), np.float32)])


# --- the gate ---


class Fixed(nn.Module):
    """Be a network that says the same of every image: logits of given classes."""

    def __init__(self, found: np.ndarray) -> None:
        super().__init__()
        self.logits = torch.nn.functional.one_hot(torch.from_numpy(found).long(), 3).movedim(-1, 0)[None].float()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits


def as_they_are(data: dict) -> dict:
    return {"pred": data["pred"].argmax(0, keepdim=True), "truth": data["label_before"]}


def verdict(before: np.ndarray, after: np.ndarray, truth: np.ndarray):
    case = {"image": MetaTensor(torch.zeros(1, *truth.shape)), "label_before": torch.from_numpy(truth)[None]}
    return judge([case, case], (Fixed(before), Fixed(after)), SimpleInferer(), as_they_are, ["background", "a", "b"])


def test_dice_and_agreement_are_those_of_a_count():
    truth = np.zeros((20, 50), np.uint8)
    truth[:10, :10], truth[10:, :10] = 1, 2
    worse = truth.copy()
    worse[0, :10] = 0  # 10 of the 100 pixels of the first class
    found = verdict(truth, worse, truth)
    assert found.cases == 2 and found.before == 1
    assert found.after == pytest.approx((180 / 190 + 1) / 2) and found.agreement == pytest.approx(0.99)
    assert not found.passed
    with pytest.raises(PyrasegError, match=r"int8 did not pass: Dice 1.0000 -> 0.9737 on 2 .* 99.00%.*The worst: x."):
        found.require("int8", "The worst: x.")


def test_both_halves_of_the_gate_count():
    truth = np.zeros((100, 100), np.uint8)
    truth[:50], truth[50:52, :50] = 1, 2
    same = truth.copy()
    assert verdict(truth, same, truth).passed
    small = truth.copy()
    small[50, :20] = 0  # 0.2 % of the pixels, but a fifth of a class
    found = verdict(truth, small, truth)
    assert found.agreement > 0.995 and not found.passed
    lucky = truth.copy()
    lucky[:5, :20] = 0  # 1 % of the pixels, wrong before and right after
    found = verdict(lucky, truth, truth)
    assert found.after > found.before and found.agreement < 0.995 and not found.passed


def test_ranges_of_other_images_do_not_pass(float_file, images, tmp_path):
    dark = [image / 1000 for image in images]
    path = tmp_path / "int8.network.onnx"
    onnx.save(quantize(float_file, dark, dark, enough=0).model, path)
    forms = tuple(OnnxNetwork(file, threads=1, settings=None, remedy="") for file in (float_file, path))
    truth = torch.from_numpy(classes(onnx.load(float_file), images[:1])[0])
    case = {"image": MetaTensor(torch.from_numpy(images[0][0])), "label_before": truth}
    found = judge([case], forms, SimpleInferer(), as_they_are, ["background", "a", "b"])
    assert found.before == 1 and found.after < 0.9 and not found.passed


def test_onnx_runtimes_dynamic_quantization_leaves_activations_in_float(float_file, images, tmp_path):
    quantize_dynamic(float_file, tmp_path / "dynamic.onnx", op_types_to_quantize=["MatMul", "Gemm"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "dynamic.onnx").graph.node}
    assert "Conv" in kinds and not {"ConvInteger", "QLinearConv"} & kinds
