# SPDX-License-Identifier: Apache-2.0
"""MONAI's export commands take every named encoder."""

import json

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigParser

from tests.helpers.network_tests import in_onnxruntime, randomize_statistics, relative_error

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
ENCODERS = [
    ("mobilenetv3_large_100", 2),
    ("tf_efficientnet_lite0", 2),
    ("efficientnet_b0", 2),
    ("resnet18", 2),
    ("resnet50", 2),
    ("resnet101", 2),
    ("convnext_tiny", 2),
    ("efficientnet_b0", 3),
    ("resnet50", 3),
]


@pytest.fixture(params=ENCODERS, ids=lambda param: f"{param[0]}-{param[1]}d")
def bundle(request, tmp_path):
    """Write a config and a checkpoint; return the folder, the network and the axes of its images."""
    encoder, spatial_dims = request.param
    network = {"_target_": "bundle.pyraseg.networks.PSPNet", "spatial_dims": spatial_dims, "encoder": encoder}
    network |= {"in_channels": 3, "pretrained": False, "bottleneck": 16}
    (tmp_path / "config.json").write_text(json.dumps({"network_def": network}))
    torch.manual_seed(0)
    network = ConfigParser({"network_def": network}).get_parsed_content("network_def").eval()
    randomize_statistics(network)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    return tmp_path, network, spatial_dims


def compare(network, exported, spatial_dims):
    for size in [(97, 64, 50), (33, 70, 33)]:
        image = torch.randn(1, 3, *size[:spatial_dims])
        with torch.no_grad():
            assert relative_error(exported(image), network(image)) <= 1e-4


def test_ckpt_export(bundle):
    folder, network, spatial_dims = bundle
    monai.bundle.ckpt_export(
        "network_def", filepath=str(folder / "model.ts"), ckpt_file=str(folder / "model.pt"),
        config_file=str(folder / "config.json"),
    )  # fmt: skip
    compare(network, torch.jit.load(folder / "model.ts"), spatial_dims)


@pytest.mark.parametrize("traced", [True, False], ids=["tracing", "torch.export"])
def test_onnx_export(bundle, traced):
    folder, network, spatial_dims = bundle
    axes = {
        axis: name
        for axis, name in enumerate(["batch", None, "side_0", "side_1", "side_2"][: 2 + spatial_dims])
        if name
    }
    options = {"input_names": ["image"], "output_names": ["pred"], "dynamic_axes": {"image": axes, "pred": axes}}
    monai.bundle.onnx_export(
        "network_def", filepath=str(folder / "model.onnx"), ckpt_file=str(folder / "model.pt"),
        config_file=str(folder / "config.json"), input_shape=[2, 3, *(70, 91, 40)[:spatial_dims]], use_trace=traced,
        converter_kwargs=options | ({"dynamo": False} if traced else {}),
    )  # fmt: skip
    compare(network, in_onnxruntime(folder / "model.onnx"), spatial_dims)
