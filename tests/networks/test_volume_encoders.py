# SPDX-License-Identifier: Apache-2.0
"""3-D: MONAI's encoders under the same pyramid and heads."""

import pytest
import torch
from monai.networks.nets.resnet import ResNetFeatures
from torch import nn

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.networks.deeplab import DeepLabV3Plus
from bundle.pyraseg.networks.encoders import VOLUME_ENCODERS, build_encoder
from bundle.pyraseg.networks.pspnet import PSPNet
from tests.helpers.network_tests import in_onnxruntime, randomize_statistics, relative_error

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
HEADS = {"plain": (PSPNet, {}), "fpn": (PSPNet, {"decoder": "fpn"}), "deeplab": (DeepLabV3Plus, {})}
PAIRS = [
    ("efficientnet_b0", "plain"),
    ("efficientnet_b0", "fpn"),
    ("efficientnet_b0", "deeplab"),
    *(pytest.param(("resnet50", head), marks=pytest.mark.slow) for head in HEADS),
]
AXES = {0: "batch", 2: "depth", 3: "height", 4: "width"}
SIZES = [(33, 20, 40), (32, 64, 32), (20, 35, 65)]


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", VOLUME_ENCODERS)
def test_four_stages_from_stride_four_to_the_output_stride(name, stride):
    encoder = build_encoder(name, spatial_dims=3, in_channels=1, pretrained=False, output_stride=stride).eval()
    assert encoder.strides == [min(4 * 2**index, stride) for index in range(4)]
    with torch.no_grad():
        maps = encoder(torch.zeros(1, 1, 64, 32, 32))
    for features, channels, each in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert features.shape == (1, channels, 64 // each, 32 // each, 32 // each)


def test_stride_eight_is_dilated_as_medicalnet_was_trained():
    encoder = build_encoder("resnet50", spatial_dims=3, in_channels=1, pretrained=False, output_stride=8)
    for stage, dilation in zip(encoder.stages, (1, 1, 2, 4), strict=True):
        wide = [module for module in stage.modules() if isinstance(module, nn.Conv3d) and module.kernel_size[0] == 3]
        assert {module.dilation for module in wide} == {(dilation,) * 3}


def medicalnet_file(path):
    """Write random weights in MedicalNet's layout: MONAI's names behind `module.`, in a checkpoint."""
    torch.manual_seed(0)
    network = ResNetFeatures("resnet50", pretrained=False, spatial_dims=3, in_channels=1).eval()
    randomize_statistics(network)
    torch.save({"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}}, path)
    return network


@pytest.mark.slow
def test_medicalnets_weights_compute_what_monai_computes(tmp_path):
    network = medicalnet_file(tmp_path / "resnet_50.pth")
    options = {"spatial_dims": 3, "pretrained": tmp_path / "resnet_50.pth", "output_stride": 32}
    gray = build_encoder("resnet50", in_channels=1, **options).eval()
    three = build_encoder("resnet50", in_channels=3, **options).eval()
    image = torch.randn(1, 1, 64, 32, 32)
    with torch.no_grad():
        expected = network(image)[1:]
        for own, repeated, theirs in zip(gray(image), three(image.expand(-1, 3, -1, -1, -1)), expected, strict=True):
            torch.testing.assert_close(own, theirs)
            torch.testing.assert_close(repeated, theirs, atol=1e-4, rtol=1e-4)


def test_refusals(tmp_path):
    with pytest.raises(PyrasegError, match="3-D encoders are efficientnet_b0 and resnet50; 'resnet18' is none"):
        PSPNet(spatial_dims=3, encoder="resnet18", pretrained=False)
    with pytest.raises(PyrasegError, match="MedicalNet"):
        PSPNet(spatial_dims=3, encoder="resnet50", pretrained=True)
    medicalnet_file(tmp_path / "resnet_50.pth")
    with pytest.raises(PyrasegError, match="lack"):
        build_encoder("efficientnet_b0", spatial_dims=3, pretrained=tmp_path / "resnet_50.pth", in_channels=1)


@pytest.fixture(scope="module", params=PAIRS)
def network(request):
    torch.manual_seed(0)
    encoder, head = request.param
    network_class, own = HEADS[head]
    network = network_class(
        spatial_dims=3, in_channels=1, encoder=encoder, pretrained=False, out_channels=3, bottleneck=16, **own
    )
    randomize_statistics(network)
    return network


def compare(network, exported):
    for batch, size in zip((1, 2, 1), SIZES, strict=True):
        image = torch.randn(batch, 1, *size)
        with torch.no_grad():
            expected = network(image)
            assert expected.shape == (batch, 3, *size)
            assert relative_error(exported(image), expected) <= 1e-4, size


@pytest.mark.slow
def test_every_parameter_gets_a_gradient_unless_it_is_frozen(network):
    network.train()
    network.freeze("encoder.stages.0")
    network(torch.randn(2, 1, 33, 20, 40)).square().mean().backward()
    missing = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert missing == {name for name, _ in network.named_parameters() if name.startswith("encoder.stages.0.")}
    network.zero_grad(set_to_none=True)
    network.unfreeze("encoder")


@pytest.mark.slow
def test_scripted_equals_eager(network, tmp_path):
    torch.jit.script(network.eval()).save(tmp_path / "network.ts")
    compare(network, torch.jit.load(tmp_path / "network.ts"))


@pytest.mark.slow
def test_onnx_by_tracing_holds_at_other_sizes(network, tmp_path):
    torch.onnx.export(
        network.eval(), (torch.randn(2, 1, 40, 33, 20),), tmp_path / "n.onnx", dynamo=False, opset_version=18,
        input_names=["image"], output_names=["pred"], dynamic_axes={"image": AXES, "pred": AXES},
    )  # fmt: skip
    compare(network, in_onnxruntime(tmp_path / "n.onnx"))


@pytest.mark.slow
def test_onnx_by_torch_export_holds_at_other_sizes(network, tmp_path):
    shapes = ({axis: torch.export.Dim(name) for axis, name in AXES.items()},)
    torch.onnx.export(
        network.eval(), (torch.randn(2, 1, 40, 33, 20),), tmp_path / "n.onnx", dynamo=True, opset_version=18,
        input_names=["image"], output_names=["pred"], dynamic_shapes=shapes, verbose=False,
    )  # fmt: skip
    compare(network, in_onnxruntime(tmp_path / "n.onnx"))


@pytest.mark.slow
def test_torch_export_holds_at_other_sizes(network):
    shapes = ({axis: torch.export.Dim(name) for axis, name in AXES.items()},)
    program = torch.export.export(network.eval(), (torch.randn(2, 1, 40, 33, 20),), dynamic_shapes=shapes)
    compare(network, program.module())
