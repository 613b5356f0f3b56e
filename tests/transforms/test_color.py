# SPDX-License-Identifier: Apache-2.0
"""Color jitter against torchvision's definitions of brightness, contrast and saturation, and the geometry of hue."""

import numpy as np
import pytest
import torch

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms.color import RandColorJitterd, color_matrix

LUMA = torch.tensor([0.299, 0.587, 0.114])


def jitter(image, **amplitudes):
    """Apply full amplitudes: every draw is 1."""
    none = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
    transform = RandColorJitterd("image", **(none | amplitudes))
    transform._draw = np.ones(4)
    return transform.apply(image)


@pytest.fixture
def image():
    return 0.3 + 0.4 * torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(1))


def test_brightness_scales(image):
    torch.testing.assert_close(jitter(image, brightness=0.2), image * 1.2)


def test_contrast_scales_about_the_mean_luma(image):
    mean = torch.einsum("c,cwh->wh", LUMA, image).mean()
    torch.testing.assert_close(jitter(image, contrast=0.2), mean + 1.2 * (image - mean), atol=1e-5, rtol=0)


def test_saturation_blends_with_the_luma(image):
    gray = torch.einsum("c,cwh->wh", LUMA, image)
    torch.testing.assert_close(jitter(image, saturation=0.5), gray + 1.5 * (image - gray), atol=1e-3, rtol=0)


def test_hue_keeps_luma_and_gray_and_turns_back():
    third = color_matrix(1.0, 2 * np.pi / 3)
    np.testing.assert_allclose(third @ third @ third, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(third @ np.ones(3), np.ones(3), atol=1e-3)
    np.testing.assert_allclose(LUMA.numpy() @ third, LUMA.numpy(), atol=1e-6)
    assert not np.allclose(third, np.eye(3))


def test_values_keep_their_range_and_draws_follow_seed_and_strength(image):
    normalization = {"mean": [0.5] * 3, "std": [0.5] * 3}
    transform = RandColorJitterd("image", brightness=0.9, contrast=0.9, normalization=normalization)
    signed = 2 * image - 1
    transform.set_random_state(seed=3)
    first = transform({"image": signed})["image"]
    assert first.min() >= -1 and first.max() <= 1 and not first.equal(signed)
    transform.set_random_state(seed=3)
    assert transform({"image": signed})["image"].equal(first)
    transform.strength = 0.0
    assert transform({"image": signed})["image"].equal(signed)


def test_refusals():
    with pytest.raises(PyrasegError, match="0 or more"):
        RandColorJitterd("image", hue=-0.1)
    with pytest.raises(PyrasegError, match="1 channels"):
        RandColorJitterd("image")({"image": torch.zeros(1, 4, 4)})
