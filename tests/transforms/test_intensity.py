# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms.intensity import RandBlurd, RandBrightnessContrastd, RandNoised

EVERY = [RandBrightnessContrastd, RandNoised, RandBlurd]


def apply(transform: object, image: torch.Tensor, *, seed: int = 0, strength: float = 1.0) -> torch.Tensor:
    transform.strength = strength
    return transform.set_random_state(seed)({"image": image})["image"]


# --- brightness and contrast ---


def test_brightness_shifts_all_channels_alike_within_the_amplitude() -> None:
    transform = RandBrightnessContrastd("image", prob=1, brightness=0.1, contrast=0, value_range=(0, 200))
    image = torch.rand(3, 8, 8) * 200
    shifts = []
    for seed in range(200):
        difference = apply(transform, image, seed=seed) - image
        assert difference.std() < 1e-4
        shifts.append(difference.mean().item())
    assert 19 < max(shifts) <= 20.001 and -20.001 <= min(shifts) < -19  # 10 % of the range 200


def test_contrast_turns_about_the_middle_of_the_range() -> None:
    transform = RandBrightnessContrastd("image", prob=1, brightness=0, contrast=0.2, value_range=(-1, 3))
    image = torch.tensor([-1.0, 1.0, 3.0]).view(1, 3, 1)
    for seed in range(20):
        low, middle, high = apply(transform, image, seed=seed).flatten().tolist()
        assert middle == pytest.approx(1)
        assert (low + high) / 2 == pytest.approx(1)
        assert 4 * 0.8 <= high - low <= 4 * 1.2


def test_brightness_and_contrast_are_not_clamped() -> None:
    transform = RandBrightnessContrastd("image", prob=1, brightness=0.3)
    results = [apply(transform, torch.tensor([0.0, 1.0]).view(1, 2, 1), seed=seed) for seed in range(20)]
    assert min(r.min() for r in results) < 0 and max(r.max() for r in results) > 1


# --- noise ---


def test_noise_has_the_standard_deviation_drawn_and_no_bias() -> None:
    transform = RandNoised("image", prob=1, std=0.05)
    deviations = []
    for seed in range(60):
        noise = apply(transform, torch.zeros(2, 64, 64), seed=seed)
        deviations.append(noise.std().item())
        assert deviations[-1] == pytest.approx(0.05 * transform._std, rel=0.05)
        assert abs(noise.mean()) < 5 * deviations[-1] / 64
        assert abs(np.corrcoef(noise[0].flatten(), noise[1].flatten())[0, 1]) < 0.08
    assert 0.045 < max(deviations) < 0.052 and min(deviations) < 0.005


# --- blur ---


def test_blur_spreads_a_point_into_a_gaussian() -> None:
    transform = RandBlurd("image", prob=1, sigma=3.0)
    point = torch.zeros(2, 41, 41)
    point[0, 20, 20] = 1
    result = apply(transform, point, seed=1)
    sigma = 3.0 * transform._sigma
    assert sigma > 1
    distance = torch.arange(41.0) - 20
    for profile in (result[0].sum(0), result[0].sum(1)):
        assert profile.sum() == pytest.approx(1, abs=1e-4)
        assert (profile * distance**2).sum() == pytest.approx(sigma**2, rel=0.02)
    assert result[1].abs().max() == 0  # channels do not mix


def test_blur_keeps_the_borders() -> None:
    result = apply(RandBlurd("image", prob=1, sigma=3.0), torch.full((1, 20, 20), 0.7), seed=1)
    assert torch.allclose(result, torch.full((1, 20, 20), 0.7))


# --- all of them ---


@pytest.mark.parametrize("kind", EVERY)
def test_no_strength_or_no_draw_leaves_the_image_alone(kind: type) -> None:
    image = torch.rand(1, 16, 16)
    assert torch.equal(apply(kind("image", prob=1), image, strength=0.0), image)
    assert torch.equal(apply(kind("image", prob=0), image), image)


@pytest.mark.parametrize("kind", [RandBrightnessContrastd, RandNoised])
def test_strength_scales_the_change_of_the_same_draw(kind: type) -> None:
    image = torch.rand(1, 16, 16)
    half, whole = (apply(kind("image", prob=1), image, seed=3, strength=s) - image for s in (0.5, 1.0))
    assert whole.abs().max() > 1e-3
    assert torch.allclose(2 * half, whole, atol=1e-6)


def test_strength_scales_the_width_of_the_blur() -> None:
    image = torch.rand(1, 32, 32)
    half = apply(RandBlurd("image", prob=1, sigma=2.0), image, seed=1, strength=0.5)
    assert torch.equal(half, apply(RandBlurd("image", prob=1, sigma=1.0), image, seed=1))
    assert half.std() < image.std()


@pytest.mark.parametrize("kind", EVERY)
def test_seed_decides_alone(kind: type) -> None:
    image, transform = torch.rand(1, 16, 16), kind("image", prob=1)
    first = apply(transform, image, seed=4)
    np.random.seed(9)
    torch.manual_seed(9)
    assert torch.equal(first, apply(transform, image, seed=4))
    assert not torch.equal(first, apply(transform, image, seed=5))


@pytest.mark.parametrize("prob", [0.0, 1.0])
@pytest.mark.parametrize("kind", EVERY)
def test_result_is_float32_with_its_metadata(kind: type, prob: float) -> None:
    data = {"image": MetaTensor(torch.ones(1, 8, 8, dtype=torch.float64), meta={"inverted": False}), "label": 1}
    result = kind("image", prob=prob)(data)
    assert result["image"].dtype == torch.float32
    assert result["image"].meta["inverted"] is False
    assert result["label"] == 1
    assert data["image"].dtype == torch.float64


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (RandBrightnessContrastd, {"brightness": -0.1}, "brightness is -0.1"),
        (RandBrightnessContrastd, {"value_range": (1, 0)}, r"value_range is \(1, 0\)"),
        (RandNoised, {"std": -1}, "std is -1"),
        (RandBlurd, {"sigma": -1}, "sigma is -1"),
    ],
)
def test_refuses_impossible_amplitudes(kind: type, options: dict[str, object], message: str) -> None:
    with pytest.raises(PyrasegError, match=message):
        kind("image", **options)
