# SPDX-License-Identifier: Apache-2.0
"""Every encoder with every head."""

import pytest
import torch

from bundle.pyraseg.networks.deeplab import DeepLabV3Plus
from bundle.pyraseg.networks.pspnet import PSPNet
from bundle.pyraseg.networks.segmentation import SegmentationNetwork
from tests.helpers.network_tests import (
    CLASSES,
    NetworkTests,
    check_onnx_by_torch_export,
    check_torch_export,
    compare_logits,
    randomize_statistics,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch.jit, and of the exporter that traces
    pytest.mark.filterwarnings("ignore:Constant folding:UserWarning"),
]

HEADS = {"plain": (PSPNet, {}), "fpn": (PSPNet, {"decoder": "fpn"}), "deeplab": (DeepLabV3Plus, {})}
SMALL = ["mobilenetv3_large_100", "tf_efficientnet_lite0", "resnet18"]
BIG = ["efficientnet_b0", "resnet50", "resnet101", "convnext_tiny"]


def build(encoder: str, head: str, **options) -> SegmentationNetwork:
    torch.manual_seed(0)
    network_class, own = HEADS[head]
    network = network_class(encoder=encoder, pretrained=False, out_channels=CLASSES, bottleneck=32, **own, **options)
    randomize_statistics(network)
    return network


@pytest.mark.parametrize("network", [(e, h) for e in SMALL for h in HEADS], indirect=True, scope="class")
class TestSmall(NetworkTests):
    @pytest.fixture(scope="class")
    def network(self, request):
        return build(*request.param)


@pytest.mark.slow
@pytest.mark.parametrize("network", [(e, h) for e in BIG for h in HEADS], indirect=True, scope="class")
class TestBig(NetworkTests):
    @pytest.fixture(scope="class")
    def network(self, request):
        return build(*request.param)


class TestFast(NetworkTests):
    """The design of the `_fast` tasks."""

    @pytest.fixture(scope="class")
    def network(self):
        return build("tf_efficientnet_lite0", "fpn", output_stride=32, patch_stem=True, decoder_stride=8)


@pytest.mark.slow
def test_torch_export_of_one_pair():
    """The others are slow: every symbolic size costs the exporter seconds."""
    check_torch_export(build("resnet18", "deeplab").eval())


@pytest.mark.slow
def test_onnx_by_torch_export_of_one_pair(tmp_path):
    check_onnx_by_torch_export(build("resnet18", "plain").eval(), tmp_path / "network.onnx")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("head", HEADS)
def test_compiled_equals_eager(head):
    network = build("resnet18", head).eval()
    compare_logits(network, torch.compile(network, dynamic=True))
