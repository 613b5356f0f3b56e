# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCrop, Compose, Rand2DElasticd
from scipy.ndimage import map_coordinates
from scipy.stats import ks_2samp
from torch.nn.functional import interpolate

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms.deformation import (
    Deformation,
    RandDeformd,
    control_points,
    distort_axis,
    resample,
    upsampling_matrix,
)

SIZE = (40, 56)


def coordinates(size: tuple[int, int]) -> torch.Tensor:
    """Return an image whose two channels are its own coordinates: a resampling of it shows where pixels come from."""
    return torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij"))


def deform(image: torch.Tensor, *, mode: str = "bilinear", **changes: object) -> torch.Tensor:
    """Resample with the identity, but for the changes."""
    size = image.shape[1:]
    identity = {
        "matrix": np.eye(2),
        "shift": np.zeros(2),
        "elastic": np.zeros((2, *(control_points(n, 8.0) for n in size))),
        "spacing": 8.0,
        "distorted": tuple(distort_axis(n, np.ones(1)) for n in size),
    }
    grid = Deformation(**(identity | changes)).sampling_grid()
    return resample(image, grid, mode=mode, padding_mode="border")


def full(keys: object = "image", **options: object) -> RandDeformd:
    """Return a transform with every kind of deformation switched on."""
    amplitudes = {"rotation": 15, "scale": 0.2, "shear": 0.1, "translation": 0.05}
    amplitudes |= {"elastic_magnitude": 3.0, "elastic_spacing": 12, "grid_distortion": 0.3}
    return RandDeformd(keys, **(amplitudes | options))


# --- the work: closed forms and other libraries ---


def test_identity_returns_the_image() -> None:
    image = torch.rand(3, *SIZE)
    assert torch.allclose(deform(image), image, atol=1e-4)


def test_quarter_turn_is_rot90() -> None:
    image = torch.rand(2, 33, 33)
    turned = deform(image, matrix=np.array([[0.0, 1.0], [-1.0, 0.0]]))
    assert torch.allclose(turned, torch.rot90(image, 1, (1, 2)), atol=1e-4)


def test_shift_takes_each_pixel_from_that_far_away() -> None:
    image = torch.rand(1, *SIZE)
    moved = deform(image, shift=np.array([2.0, -3.0]))
    assert torch.allclose(moved[:, :-2, 3:], image[:, 2:, :-3], atol=1e-4)


def test_grid_distortion_by_hand() -> None:
    # Eight pixels in two cells of relative widths 1 and 3: the border at 4 moves to 2, so the first cell is halved
    # (center 0.5 -> 0.25) and the second stretched by 1.5 (4.5 -> 2.75). The origin is the middle of the axis.
    expected = np.array([0.25, 0.75, 1.25, 1.75, 2.75, 4.25, 5.75, 7.25]) - 4
    assert np.allclose(distort_axis(8, np.array([1.0, 3.0])), expected)


@pytest.mark.parametrize(("size", "spacing"), [((64, 64), 16), ((65, 96), 20), ((50, 33), 7)])
def test_elastic_upsampling_is_that_of_monai(size: tuple[int, int], spacing: int) -> None:
    coarse = torch.randn(2, *(control_points(n, spacing) for n in size))
    reference = interpolate(coarse[None], scale_factor=spacing, mode="bicubic", align_corners=False)[0]
    reference = CenterSpatialCrop(size)(reference)
    ours = upsampling_matrix(size[0], spacing) @ coarse.numpy() @ upsampling_matrix(size[1], spacing).T
    assert np.allclose(ours, reference, atol=1e-5)


def test_whole_deformation_agrees_with_scipy() -> None:
    transform = full().set_random_state(5)
    image = torch.rand(1, *SIZE)
    result = transform({"image": image})["image"]

    # The same source coordinates, written out pixel by pixel from the draws.
    angle = math.radians(15) * transform._angle
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shear = np.array([[1, 0.1 * transform._shear[0]], [0.1 * transform._shear[1], 1]])
    matrix = turn @ shear / (1 + 0.2 * transform._zoom)
    coarse = torch.from_numpy(3.0 * transform._elastic)[None]
    elastic = CenterSpatialCrop(SIZE)(interpolate(coarse, scale_factor=12, mode="bicubic")[0]).numpy()
    axes = [distort_axis(n, 1 + 0.3 * cells) for n, cells in zip(SIZE, transform._cells, strict=True)]
    source = np.einsum("cd,dij->cij", matrix, np.stack(np.meshgrid(*axes, indexing="ij")) + elastic)
    for axis, n in enumerate(SIZE):
        source[axis] += 0.05 * transform._shift[axis] * n + (n - 1) / 2
    expected = map_coordinates(image[0].numpy(), source, order=1, mode="nearest")
    assert np.abs(expected - image[0].numpy()).mean() > 0.1  # it is no identity
    assert np.allclose(result[0], expected, atol=1e-4)


# --- the draw ---


def monai_elastic(magnitude: float, seed: int, size: tuple[int, int], spacing: int) -> tuple[torch.Tensor, np.ndarray]:
    """Return the coordinates that MONAI's transform samples, and the offsets of its control points."""
    transform = Rand2DElasticd("image", spacing=spacing, magnitude_range=(magnitude, magnitude), prob=1.0)
    transform.set_random_state(seed)
    source = transform({"image": coordinates(size)})["image"].as_tensor()
    grid = transform.rand_2d_elastic.deform_grid
    return source, grid.rand_mag * grid.random_offset


def test_elastic_field_equals_monai_for_the_same_control_points() -> None:
    size, spacing, inner = (64, 80), 16, np.s_[:, 12:-12, 12:-12]  # at the edges the padding shows
    rest, _ = monai_elastic(0.0, 3, size, spacing)  # MONAI upsamples the coordinates too, and ripples them by it
    moved, offsets = monai_elastic(2.0, 3, size, spacing)
    ours = deform(coordinates(size), elastic=offsets, spacing=float(spacing)) - coordinates(size)
    assert ours[inner].std() > 0.5
    assert torch.allclose(ours[inner], (moved - rest)[inner], atol=1e-3)


@pytest.mark.slow
def test_elastic_displacements_have_the_distribution_of_monai() -> None:
    size, spacing, magnitude, n = (48, 48), 12, 3.0, 400
    ours_transform = RandDeformd("image", rotation=0, scale=0, elastic_magnitude=magnitude, elastic_spacing=spacing)
    monai_transform = Rand2DElasticd("image", spacing=spacing, magnitude_range=(0, magnitude), prob=1.0)
    ramp = coordinates(size)
    rest, _ = monai_elastic(0.0, 0, size, spacing)
    inner = np.s_[:, 20:28:2, 20:28:2]  # far enough from the edges that no coordinate is clipped
    ours = np.empty((n, 2, 4, 4))
    theirs = np.empty_like(ours)
    for seed in range(n):
        ours[seed] = (ours_transform.set_random_state(seed)({"image": ramp})["image"] - ramp)[inner]
        theirs[seed] = (monai_transform.set_random_state(seed + n)({"image": ramp})["image"] - rest)[inner]
    for axis in range(2):
        for i, j in [(0, 0), (1, 2), (3, 3)]:
            assert ks_2samp(ours[:, axis, i, j], theirs[:, axis, i, j]).pvalue > 0.01
    # Between control points the average of several offsets is smaller: the profile must be the same.
    assert np.allclose(ours.std(axis=(0, 1)), theirs.std(axis=(0, 1)), rtol=0.12)


def test_affine_draws_fill_their_ranges() -> None:
    transform = RandDeformd("image", rotation=15, scale=0.1)
    transform.set_random_state(0)
    angles, zooms = [], []
    for _ in range(300):
        transform.randomize(SIZE)
        matrix = transform.deformation(SIZE).matrix
        zooms.append(1 / math.sqrt(np.linalg.det(matrix)))
        angles.append(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])))
    assert 14 < max(angles) <= 15 and -15 <= min(angles) < -14
    assert 1.09 < max(zooms) <= 1.1 and 0.9 <= min(zooms) < 0.91


def test_grid_distortion_keeps_edges_and_order() -> None:
    transform = RandDeformd("image", rotation=0, scale=0, grid_distortion=0.3).set_random_state(1)
    source = transform({"image": coordinates((100, 100))})["image"].numpy()
    along = source[0, :, 50]
    assert np.all(np.diff(along) > 0)
    assert abs(along[0]) < 0.5 and abs(along[-1] - 99) < 0.5
    assert np.abs(along - np.arange(100)).max() > 1
    assert np.allclose(source[0], along[:, None], atol=1e-3)  # one axis does not move the other


def test_same_seed_same_result() -> None:
    image = {"image": torch.rand(1, *SIZE)}
    transform = Compose([full()])
    first = transform.set_random_state(7)(image)["image"]
    np.random.seed(123)
    torch.manual_seed(123)
    second = transform(image)["image"]
    again = transform.set_random_state(7)(image)["image"]
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


# --- strength ---


@pytest.mark.parametrize("how", [{"strength": 0.0}, {"prob": 0.0}])
def test_no_strength_or_no_draw_leaves_everything_alone(how: dict[str, float]) -> None:
    transform = full(["image", "label"], mode=["bilinear", "nearest"], prob=how.get("prob", 1.0))
    transform.strength = how.get("strength", 1.0)
    data = {"image": torch.rand(1, *SIZE), "label": torch.ones(1, *SIZE, dtype=torch.uint8)}
    result = transform(data)
    assert all(torch.equal(result[key], data[key]) for key in data)


def test_strength_scales_the_displacements_of_the_same_draw() -> None:
    transform = RandDeformd("image", rotation=0, scale=0, translation=0.02, elastic_magnitude=3, elastic_spacing=12)
    ramp, inner = coordinates((64, 64)), np.s_[:, 16:-16, 16:-16]
    moved = {}
    for transform.strength in (0.5, 1.0):
        moved[transform.strength] = transform.set_random_state(2)({"image": ramp})["image"] - ramp
    assert moved[1.0][inner].abs().max() > 1
    assert torch.allclose(2 * moved[0.5][inner], moved[1.0][inner], atol=1e-3)


# --- image and label ---


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.float32])
def test_labels_keep_their_values_and_type(dtype: torch.dtype) -> None:
    label = torch.randint(0, 4, (1, *SIZE)).mul(50).to(dtype)
    result = full("label", mode="nearest").set_random_state(0)({"label": label})["label"]
    assert result.dtype == dtype
    assert set(result.unique().tolist()) == {0, 50, 100, 150}
    assert not torch.equal(result, label)


def test_image_and_label_move_together() -> None:
    disc = ((coordinates(SIZE) - torch.tensor([18.0, 30.0])[:, None, None]).norm(dim=0) < 12)[None]
    data = {"image": disc.float(), "label": disc.to(torch.uint8)}
    result = full(["image", "label"], mode=["bilinear", "nearest"]).set_random_state(1)(data)
    assert (disc.float() - result["image"]).abs().mean() > 0.02
    # Nearest takes the pixel that weighs most in the bilinear mean, and a disc's edge is nearly straight.
    assert ((result["image"] > 0.5) == result["label"].bool()).float().mean() > 0.99


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_integer_images_become_float_drawn_or_not(prob: float) -> None:
    result = full(prob=prob)({"image": torch.ones(1, *SIZE, dtype=torch.int16)})["image"]
    assert result.dtype == torch.float32


def test_padding_mode_is_per_key() -> None:
    transform = RandDeformd(["a", "b"], rotation=0, scale=0, translation=0.5, padding_mode=["zeros", "border"])
    result = transform.set_random_state(0)({"a": torch.ones(1, *SIZE), "b": torch.ones(1, *SIZE)})
    assert result["a"].min() == 0
    assert torch.allclose(result["b"], torch.ones(1, *SIZE))


def test_metadata_survive() -> None:
    image = MetaTensor(torch.rand(1, *SIZE), meta={"spacing_between_slices": 2.0})
    result = full().set_random_state(0)({"image": image})["image"]
    assert isinstance(result, MetaTensor)
    assert result.meta["spacing_between_slices"] == 2.0


# --- refusals ---


@pytest.mark.parametrize(
    "option",
    [{"rotation": -1}, {"scale": 1.0}, {"grid_distortion": 1.2}, {"elastic_magnitude": -3}, {"elastic_spacing": 0}],
)
def test_refuses_impossible_amplitudes(option: dict[str, float]) -> None:
    with pytest.raises(PyrasegError, match=next(iter(option))):
        RandDeformd("image", **option)


@pytest.mark.parametrize("shape", [(1, 8, 8, 8), (1, 9, 8), (8, 8)])
def test_refuses_volumes_and_unequal_sizes(shape: tuple[int, ...]) -> None:
    with pytest.raises(PyrasegError, match=r"'label' has the shape .* 2-D slices \(C, W, H\) of one size"):
        full(["image", "label"])({"image": torch.zeros(1, 8, 8), "label": torch.zeros(shape)})


def test_missing_keys() -> None:
    assert full("label", allow_missing_keys=True)({"other": 1}) == {"other": 1}
    with pytest.raises(KeyError, match="label"):
        full(["image", "label"])({"image": torch.zeros(1, *SIZE)})
