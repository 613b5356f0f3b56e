# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import AdjustContrast
from scipy.ndimage import gaussian_filter

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms.intensity import (
    RandBlurd,
    RandBrightnessContrastd,
    RandGammad,
    RandLowResolutiond,
    RandNoised,
)

EVERY = [RandBrightnessContrastd, RandGammad, RandNoised, RandBlurd, RandLowResolutiond]


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


# --- gamma ---


def test_gamma_is_that_of_monai_where_the_image_fills_the_range() -> None:
    image = torch.rand(2, 6, 7, 8) * 4 - 1
    image.view(-1)[:2] = torch.tensor([-1.0, 3.0])
    transform, gammas = RandGammad("image", prob=1, log_gamma=0.4, value_range=(-1, 3)), []
    for seed in range(100):
        result = apply(transform, image, seed=seed)
        gammas.append(float(np.exp(0.4 * transform._log_gamma)))
        assert torch.allclose(result, AdjustContrast(gammas[-1])(image), atol=1e-5)
    assert np.exp(0.36) < max(gammas) <= np.exp(0.4) and np.exp(-0.4) <= min(gammas) < np.exp(-0.36)


def test_gamma_is_the_same_for_every_patch_and_keeps_what_lies_below_the_range() -> None:
    transform = RandGammad("image", prob=1, log_gamma=0.5)
    image = torch.linspace(-0.2, 1.2, 64).view(1, 8, 8)
    whole = apply(transform, image, seed=2)
    assert torch.allclose(apply(transform, image[:, :3], seed=2), whole[:, :3], rtol=1e-5)
    assert torch.allclose(whole[image < 0], image[image < 0], rtol=1e-6)
    assert torch.all(whole.flatten().diff() > 0)


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


@pytest.mark.parametrize("shape", [(2, 17, 30), (2, 9, 17, 12), (1, 3, 2, 1)])
def test_blur_agrees_with_scipy(shape: tuple[int, ...]) -> None:
    image, transform = torch.rand(shape), RandBlurd("image", prob=1, sigma=2.0)
    result = apply(transform, image, seed=1)
    sigma = 2.0 * transform._sigma
    expected = gaussian_filter(image.numpy(), [0, *(sigma for _ in shape[1:])], mode="nearest", truncate=4)
    assert np.allclose(result, expected, atol=1e-5)


# --- low resolution ---


def test_low_resolution_averages_longer_voxels_along_each_axis_by_itself() -> None:
    transform = RandLowResolutiond("image", prob=1, factor=[1, 3, 1])
    image = torch.rand(1, 5, 12, 4)
    transform.randomize()
    transform._share = np.ones(3)
    means = image.view(1, 5, 4, 3, 4).mean(dim=3).numpy()
    result = transform.apply(image)
    for w, d in [(0, 0), (2, 3), (4, 1)]:  # voxel centers in units of the long voxels
        expected = np.interp((np.arange(12) + 0.5) / 3 - 0.5, np.arange(4), means[0, w, :, d])
        assert np.allclose(result[0, w, :, d], expected, atol=1e-6)


def test_low_resolution_keeps_constants_and_draws_up_to_its_factor() -> None:
    transform = RandLowResolutiond("image", prob=1, factor=4.0)
    constant = torch.full((2, 9, 10, 3), 0.7)
    sharpness = []
    for seed in range(50):
        assert torch.allclose(apply(transform, constant, seed=seed), constant)
        one_axis = RandLowResolutiond("image", prob=1, factor=[4.0, 1.0])
        sharpness.append(apply(one_axis, torch.eye(64)[None], seed=seed).max().item())  # about 1 / factor
    assert 0.25 <= min(sharpness) < 0.3 and 0.8 < max(sharpness) <= 1


def test_low_resolution_wants_one_factor_for_each_axis() -> None:
    with pytest.raises(PyrasegError, match=r"3 factors for an image of shape .*its 2 axes"):
        apply(RandLowResolutiond("image", prob=1, factor=[1, 1, 2]), torch.rand(1, 8, 8))


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
@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 12, 10, 8)])
def test_seed_decides_alone(kind: type, shape: tuple[int, ...]) -> None:
    image, transform = torch.rand(shape), kind("image", prob=1)
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
        (RandGammad, {"log_gamma": -1}, "log_gamma is -1"),
        (RandGammad, {"value_range": (1, 1)}, r"value_range is \(1, 1\)"),
        (RandLowResolutiond, {"factor": [1, 0.5, 1]}, r"factor is \[1, 0.5, 1\]"),
        (RandNoised, {"std": -1}, "std is -1"),
        (RandBlurd, {"sigma": -1}, "sigma is -1"),
    ],
)
def test_refuses_impossible_amplitudes(kind: type, options: dict[str, object], message: str) -> None:
    with pytest.raises(PyrasegError, match=message):
        kind("image", **options)
