# SPDX-License-Identifier: Apache-2.0
"""Encoder weights come from where they should, and mean what they should."""

import pytest
import torch
from skimage import data
from skimage.transform import resize

from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.networks.encoders import PACKAGED_ENCODER, build_encoder, packaged_weights, timm


def test_packaged_weights_recognise_a_photograph():
    """A wrong mapping would not: ImageNet's class 967 is espresso, 281 to 285 are cats."""
    classifier = timm.create_model(PACKAGED_ENCODER, pretrained=False).eval()
    classifier.load_state_dict(packaged_weights())
    for photograph, classes in [(data.coffee(), {967}), (data.cat(), set(range(281, 286)))]:
        image = torch.from_numpy(resize(photograph, (224, 224))).float().movedim(-1, 0)[None] * 2 - 1
        with torch.no_grad():
            assert classifier(image).argmax().item() in classes


def test_feature_maps_shrink_to_the_output_stride():
    for stride in (8, 16, 32):
        encoder = build_encoder(PACKAGED_ENCODER, pretrained=False, output_stride=stride)
        assert encoder(torch.zeros(1, 3, 64, 96))[-1].shape[-2:] == (64 // stride, 96 // stride)


def test_grey_input_sees_the_sum_of_the_colour_weights():
    colour = build_encoder(PACKAGED_ENCODER).eval()
    grey = build_encoder(PACKAGED_ENCODER, in_channels=1).eval()
    image = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(grey(image)[-1], colour(image.expand(1, 3, 64, 64))[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path, suffix):
    from safetensors.torch import save_file

    source = build_encoder("resnet18", pretrained=False)
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(source.state_dict(), path)
    loaded = build_encoder("resnet18", pretrained=str(path))
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in source.state_dict().items())


def test_refusals(tmp_path):
    with pytest.raises(PyrasegError, match=r"no encoder named 'resnet-18'.*resnet18"):
        build_encoder("resnet-18")
    with pytest.raises(PyrasegError, match="no file of encoder weights"):
        build_encoder("resnet18", pretrained=tmp_path / "absent.pth")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(PyrasegError, match="lack"):
        build_encoder("resnet18", pretrained=tmp_path / "other.pth")
