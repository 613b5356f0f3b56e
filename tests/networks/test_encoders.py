# SPDX-License-Identifier: Apache-2.0
"""Encoders have uniform stages; their weights come from where they should, and mean what they should."""

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file
from skimage import data
from skimage.transform import resize

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.networks.encoders import build_encoder, timm
from bundle.pyraseg.networks.torchvision_ops import import_with_torchvision
from bundle.pyraseg.networks.weights import PACKAGED_ENCODERS, load_weights, read_packaged_weights

torchvision = import_with_torchvision("torchvision")

SMALL = ["mobilenetv3_large_100", "tf_efficientnet_lite0", "resnet18"]
BIG = ["efficientnet_b0", "resnet50", "resnet101", "convnext_tiny"]
ENCODERS = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in BIG)]


@pytest.mark.parametrize("name", PACKAGED_ENCODERS)
def test_packaged_weights_recognize_a_photograph(name):
    """A wrong mapping would not: ImageNet's class 967 is espresso, 281 to 285 are cats."""
    pytest.importorskip(PACKAGED_ENCODERS[name])
    classifier = timm.create_model(name, pretrained=False).eval()
    load_weights(classifier, read_packaged_weights(name))
    for photograph, classes in [(data.coffee(), {967}), (data.cat(), set(range(281, 286)))]:
        image = torch.from_numpy(resize(photograph, (224, 224))).float().movedim(-1, 0)[None] * 2 - 1
        with torch.no_grad():
            assert classifier(image).argmax().item() in classes


def test_the_packaged_weights_reach_the_encoder():
    classifier = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    load_weights(classifier, read_packaged_weights())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = classifier.forward_intermediates(image, intermediates_only=True)[-1]
        torch.testing.assert_close(build_encoder("tf_efficientnet_lite0", output_stride=32).eval()(image)[-1], expected)


# --- structure ---


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", ENCODERS)
def test_four_stages_from_stride_four_to_the_output_stride(name, stride):
    encoder = build_encoder(name, pretrained=False, output_stride=stride).eval()
    with torch.no_grad():
        maps = encoder(torch.zeros(1, 3, 64, 96))
    assert len(encoder.stages) == 4
    assert encoder.strides == [min(4 * 2**index, stride) for index in range(4)]
    for features, channels, each in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert features.shape == (1, channels, 64 // each, 96 // each)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_maps_are_those_of_timm(name):
    """Dividing an extractor into stages, and padding it statically, changes nothing."""
    extractor = timm.create_model(name, pretrained=False, features_only=True).eval()
    encoder = build_encoder(name, pretrained=False, output_stride=32).eval()
    for own, theirs in zip(encoder.state_dict().values(), extractor.state_dict().values(), strict=False):
        own.copy_(theirs)
    image = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        for own, theirs in zip(encoder(image), extractor(image)[-4:], strict=True):
            torch.testing.assert_close(own, theirs, atol=1e-5, rtol=1e-5)


def test_depth_keeps_the_first_stages():
    whole, half = (build_encoder("resnet18", pretrained=False, depth=depth) for depth in (None, 2))
    half.load_state_dict({name: whole.state_dict()[name] for name in half.state_dict()})
    assert half.strides == [4, 8]
    image = torch.randn(1, 3, 64, 64)
    for own, theirs in zip(half.eval()(image), whole.eval()(image)[:2], strict=True):
        torch.testing.assert_close(own, theirs)


@pytest.mark.parametrize(("name", "stride"), [("regnetx_002", 16), ("densenet121", 32), ("hrnet_w18_small", 32)])
def test_other_encoders_of_timm(name, stride):
    encoder = build_encoder(name, pretrained=False, output_stride=stride).eval()
    with torch.no_grad():
        shapes = [tuple(features.shape) for features in encoder(torch.zeros(1, 3, 64, 64))]
    assert shapes == [(1, c, 64 // s, 64 // s) for c, s in zip(encoder.channels, encoder.strides, strict=True)]
    assert encoder.strides[0] == 4 and encoder.strides[-1] == stride


# --- weights ---


def test_gray_input_sees_the_sum_of_the_color_weights(caplog):
    color = build_encoder("tf_efficientnet_lite0").eval()
    with caplog.at_level("INFO"):
        gray = build_encoder("tf_efficientnet_lite0", in_channels=1).eval()
    assert "adapted from 3 to 1 input channels" in caplog.text
    image = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(gray(image)[-1], color(image.expand(1, 3, 64, 64))[-1], atol=1e-4, rtol=1e-4)


def test_six_channels_see_a_repeated_image_as_three_do():
    three, six = (
        build_encoder("tf_efficientnet_lite0").eval(),
        build_encoder("tf_efficientnet_lite0", in_channels=6).eval(),
    )
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(six(image.repeat(1, 2, 1, 1))[-1], three(image)[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("convnext_tiny", marks=pytest.mark.slow)])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_classifier_of_timm_from_a_file(tmp_path, suffix, name):
    classifier = timm.create_model(name, pretrained=False).eval()
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(classifier.state_dict(), path)
    encoder = build_encoder(name, pretrained=str(path), output_stride=32).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.forward_intermediates(image, norm=False, intermediates_only=True)[-1]
        torch.testing.assert_close(encoder(image)[-1], expected)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("resnet18", "resnet18"),
        ("mobilenetv3_large_100", "mobilenet_v3_large"),
        pytest.param("efficientnet_b0", "efficientnet_b0", marks=pytest.mark.slow),
        pytest.param("resnet50", "resnet50", marks=pytest.mark.slow),
        pytest.param("convnext_tiny", "convnext_tiny", marks=pytest.mark.slow),
    ],
)
def test_weights_in_torchvisions_layout_compute_the_same(tmp_path, name, architecture):
    """Independent truth: torchvision's own network with the same weights, batch statistics and epsilons included."""
    network = torchvision.models.get_model(architecture, weights=None)
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():  # trained networks have statistics, and small variances that show an epsilon
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1, generator=generator)
            module.running_var.uniform_(0.01, 0.05, generator=generator)
            module.weight.data.fill_(0.15)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "weights.pth")
    encoder = build_encoder(name, pretrained=tmp_path / "weights.pth", output_stride=32).eval()
    image = torch.randn(1, 3, 64, 96)
    layers = torch.nn.Sequential(*list(network.children())[:-2]) if "resnet" in name else network.features
    with torch.no_grad():
        expected = layers.eval()(image)
        if name == "efficientnet_b0":  # its last layer lies behind timm's feature maps
            expected = layers[:-1](image)
        assert expected.std() > 1e-3
        torch.testing.assert_close(encoder(image)[-1], expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-4)


# --- refusals ---


def test_refuses_unknown_names_and_options():
    with pytest.raises(PyrasegError, match=r"no encoder named 'resnet-18'.*resnet18"):
        build_encoder("resnet-18")
    with pytest.raises(PyrasegError, match="`output_stride` is 8, 16 or 32, not 4"):
        build_encoder("resnet18", pretrained=False, output_stride=4)
    with pytest.raises(PyrasegError, match="densenet121 has an output stride of 32 and no other"):
        build_encoder("densenet121", pretrained=False, output_stride=16)
    with pytest.raises(PyrasegError, match="lies in 1 to 4, not at 5"):
        build_encoder("resnet18", pretrained=False, depth=5)
    with pytest.raises(PyrasegError, match="Choose a convolutional encoder"):
        build_encoder("swin_tiny_patch4_window7_224", pretrained=False, output_stride=32)


def test_refuses_weights_that_do_not_fit(tmp_path):
    with pytest.raises(PyrasegError, match="no file of encoder weights"):
        build_encoder("resnet18", pretrained=tmp_path / "absent.pth")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(PyrasegError, match="lack 100 of the encoder's 100 tensors"):
        build_encoder("resnet18", pretrained=tmp_path / "other.pth")
    torch.save(torchvision.models.mobilenet_v3_large().state_dict(), tmp_path / "mobile.pth")
    with pytest.raises(PyrasegError, match=r"do not fit the encoder: where it has 'conv1.weight' of shape \(64, 3, 7"):
        build_encoder("resnet18", pretrained=tmp_path / "mobile.pth")
    scrambled = timm.create_model("resnet18", pretrained=False).state_dict()
    scrambled = {f"x.{name}": scrambled[name] for name in sorted(scrambled, key=lambda n: ("bn1.bias" not in n, n))}
    torch.save(scrambled, tmp_path / "scrambled.pth")
    with pytest.raises(PyrasegError, match="do not fit the encoder"):
        build_encoder("resnet18", pretrained=tmp_path / "scrambled.pth")


def test_without_a_network_both_other_ways_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PyrasegError, match=r"could not be downloaded.*tf_efficientnet_lite0.*package.*weights file"):
        build_encoder("resnet18", pretrained=True)


# --- a stem of patches ---


def test_a_patch_stem_leaves_the_deeper_stages_as_they_are():
    plain = build_encoder("tf_efficientnet_lite0", output_stride=32).eval()
    fast = build_encoder("tf_efficientnet_lite0", output_stride=32, patch_stem=True).eval()
    assert (fast.channels, fast.strides) == (plain.channels, plain.strides)
    image = torch.randn(1, 3, 96, 64)
    stem = fast.stem(image)
    assert stem.shape == (1, 24, 24, 16)
    with torch.no_grad():
        found = plain.stages[0].blocks_1[1:](stem)  # what is left of the first stage, with its pretrained weights
        torch.testing.assert_close(fast(image)[0], found)
        torch.testing.assert_close(fast(image)[3], plain.stages[3](plain.stages[2](plain.stages[1](found))))


def test_a_patch_sees_what_lies_around_its_place():
    """Position (i, j) of the stem's map sees rows 4 i - 2 to 4 i + 5: around the 4 pixels that it stands for."""
    stem = build_encoder("tf_efficientnet_lite0", pretrained=False, patch_stem=True).stem
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    stem.eval().patches[0](image)[0, :, 5, 7].sum().backward()
    rows, columns = (torch.nonzero(image.grad[0].abs().sum(dim=(0, axis))).flatten().tolist() for axis in (2, 1))
    assert rows == list(range(18, 26)) and columns == list(range(26, 34))


def test_a_patch_stem_is_refused_where_it_cannot_be():
    for options in ({"name": "efficientnet_b0", "spatial_dims": 3, "in_channels": 1}, {"name": "vgg11"}):
        with pytest.raises(PyrasegError, match="`patch_stem`"):
            build_encoder(pretrained=False, patch_stem=True, output_stride=32, **options)


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 2), ("mobilenetv3_large_100", 1)])
def test_blocks_that_do_not_stride_stay_behind_a_patch_stem(name, blocks):
    """The stem of a ResNet reaches stride 4 by itself; MobileNetV3 strides in the first of two blocks."""
    plain, fast = (build_encoder(name, pretrained=False, output_stride=32, patch_stem=patch) for patch in (False, True))
    assert (
        sum(1 for part in fast.stages[0].modules() if type(part).__name__ in ("BasicBlock", "InvertedResidual"))
        == blocks
    )
    image = torch.zeros(2, 3, 64, 96)
    assert [each.shape for each in fast(image)] == [each.shape for each in plain(image)]
