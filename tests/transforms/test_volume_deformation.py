# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandAffineGrid
from scipy.ndimage import center_of_mass, map_coordinates, zoom
from scipy.stats import ks_2samp

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms import RandDeformVolumed, set_strength
from bundle.pyraseg.transforms.deformation import control_points

SIZE = (24, 28, 20)
INNER = np.s_[:, 6:-6, 6:-6, 6:-6]


def coordinates(size: tuple[int, ...]) -> torch.Tensor:
    """Return a volume whose three channels are its own coordinates: deformed, it shows where voxels come from."""
    return torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij"))


def drawn(
    image: torch.Tensor, *, angles: object = 0, zoom: float = 0, shift: object = 0, **options: object
) -> torch.Tensor:
    """Deform with these draws (shares of the amplitudes, in [-1, 1]) and without elastic displacements."""
    transform = RandDeformVolumed("image", **({"rotation": 0, "scale": 0} | options))
    size = transform.patch_size or image.shape[1:]
    transform.randomize(size)
    transform._angles, transform._shift = np.broadcast_to(angles, 3), np.broadcast_to(shift, 3)
    transform._zoom = zoom
    data = {"image": image}
    transform._deform(data, transform.deformation(image.shape[1:], size))
    return data["image"]


def full(keys: object = "image", **options: object) -> RandDeformVolumed:
    """Return a transform with every kind of deformation switched on, for voxels that are no cubes."""
    amplitudes = {"rotation": [10, 15, 20], "scale": 0.2, "translation": [0.05, 0.02, 0.1], "spacing": [1, 1.5, 2.5]}
    amplitudes |= {"elastic_magnitude": [3.0, 2.0, 2.5], "elastic_spacing": 12}
    return RandDeformVolumed(keys, **(amplitudes | options))


# --- the work: closed forms and other libraries ---


def test_identity_returns_the_volume() -> None:
    image = torch.rand(2, *SIZE)
    assert torch.allclose(drawn(image), image, atol=1e-5)


def test_shift_takes_each_voxel_from_that_far_away() -> None:
    image = torch.rand(1, 20, 20, 20)
    moved = drawn(image, translation=[0.1, 0.15, 0.05], shift=[1, -1, 1])
    assert torch.allclose(moved[:, :-2, 3:, :-1], image[:, 2:, :-3, 1:], atol=1e-5)


@pytest.mark.parametrize(("axis", "plane"), [(0, (2, 3)), (1, (1, 3)), (2, (1, 2))])
def test_quarter_turn_about_each_axis_is_rot90(axis: int, plane: tuple[int, int]) -> None:
    image = torch.rand(2, 15, 15, 15)
    turned = drawn(image, rotation=90, angles=np.eye(3)[axis])
    assert torch.allclose(turned, torch.rot90(image, -1, plane), atol=1e-4)


def test_turns_are_made_about_w_then_h_then_d() -> None:
    image = torch.rand(1, 9, 9, 9)
    turned = drawn(image, rotation=90, angles=[1, 1, 1])  # the source is turned, so the result by the last turn first
    expected = torch.rot90(torch.rot90(torch.rot90(image, -1, (1, 2)), -1, (1, 3)), -1, (2, 3))
    assert torch.allclose(turned, expected, atol=1e-4)


def test_magnification_flattens_a_ramp() -> None:
    ramp = coordinates((21, 21, 21)) - 10
    assert torch.allclose(drawn(ramp, scale=0.25, zoom=1), ramp / 1.25, atol=1e-4)


def test_rotation_is_rigid_in_mm_where_voxels_are_no_cubes() -> None:
    spacing = np.array([0.8, 1.0, 2.5])
    points = np.array([[30, 25, 12], [18, 32, 14], [24, 20, 20], [34, 36, 9]])
    image = torch.zeros(len(points), 56, 52, 30)
    for channel, (w, h, d) in zip(image, points, strict=True):
        distance = (coordinates((56, 52, 30)).numpy() - np.array([w, h, d])[:, None, None, None]).T * spacing
        channel[:] = torch.from_numpy(np.exp(-0.5 * (distance.T / 2.2) ** 2).prod(axis=0))
    turned = drawn(image, rotation=20, angles=[0.4, -0.5, 1.0], spacing=spacing)
    found = np.array([center_of_mass(channel.numpy()) for channel in turned])
    assert np.abs(found - points).max() > 2
    before, after = (np.linalg.norm((p[:, None] - p) * spacing, axis=-1) for p in (points, found))
    assert np.allclose(before, after, atol=0.05)  # mm


def reference_source(transform: RandDeformVolumed, size: tuple[int, ...]) -> np.ndarray:
    """Return where `full` takes each voxel from, counted from the middle, by scipy from the draws: (3, W, H, D)."""
    spacing, amplitude = np.array([1, 1.5, 2.5]), np.array([3.0, 2.0, 2.5])
    a, b, c = np.radians([10, 15, 20]) * transform._angles
    about_w = [[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]]
    about_h = [[math.cos(b), 0, -math.sin(b)], [0, 1, 0], [math.sin(b), 0, math.cos(b)]]
    about_d = [[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]]
    rigid = np.array(about_d) @ np.array(about_h) @ np.array(about_w) / (1 + 0.2 * transform._zoom)
    axes = [(np.arange(n) - (n - 1) / 2) * gap for n, gap in zip(size, spacing, strict=True)]
    mm = np.stack(np.meshgrid(*axes, indexing="ij"))
    field = []
    for offsets, largest in zip(transform._elastic, amplitude, strict=True):
        for axis, (n, gap) in enumerate(zip(size, 12 / spacing, strict=True)):
            offsets = np.apply_along_axis(cubic_upsampling, axis, offsets, n, gap)
        field.append(largest * offsets)
    source = np.einsum("cd,dijk->cijk", rigid, mm + np.stack(field)) / spacing[:, None, None, None]
    shift = np.array([0.05, 0.02, 0.1]) * transform._shift * size
    return source + shift[:, None, None, None]


def cubic_upsampling(points: np.ndarray, n: int, gap: float) -> np.ndarray:
    """Return cubic convolution (Keys 1981, a = -0.75) between control points laid around the middle of an axis."""
    fine = int(len(points) * gap)
    places = (np.arange(fine)[fine // 2 - n // 2 :][:n] + 0.5) * len(points) / fine - 0.5
    result = np.zeros(n)
    for tap in range(-1, 3):
        at = np.floor(places) + tap
        x = np.abs(places - at)
        near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
        result += np.where(x <= 1, near, far) * points[np.clip(at, 0, len(points) - 1).astype(int)]
    return result


def test_whole_deformation_agrees_with_scipy() -> None:
    transform = full().set_random_state(5)
    image = torch.from_numpy(zoom(np.random.default_rng(0).random((6, 7, 5)), 4, order=1)).float()[None]
    result = transform({"image": image})["image"]
    source = reference_source(transform, SIZE) + (np.array(SIZE)[:, None, None, None] - 1) / 2
    expected = map_coordinates(image[0].numpy(), source, order=1, mode="nearest")
    assert np.abs(expected - image[0].numpy()).mean() > 0.1  # it is no identity
    assert np.allclose(result[0], expected, atol=1e-4)


def test_a_patch_is_taken_from_the_larger_item_in_the_same_resampling() -> None:
    patch, item = (24, 28, 20), (41, 40, 33)
    transform = full(patch_size=patch).set_random_state(5)
    image = torch.rand(1, *item)
    result = transform({"image": image})["image"]
    middle = (np.array(item) - patch) // 2 + (np.array(patch) - 1) / 2
    source = reference_source(transform, patch) + middle[:, None, None, None]
    assert np.allclose(result[0], map_coordinates(image[0].numpy(), source, order=1, mode="nearest"), atol=1e-4)


# --- the patch ---


@pytest.mark.parametrize("how", [{"strength": 0.0}, {"prob": 0.0}, {"rotation": 0, "scale": 0, "elastic_magnitude": 0}])
@pytest.mark.parametrize("item", [(15, 16, 21), (8, 9, 5), (20, 6, 9)])
def test_without_a_deformation_the_patch_is_cut_voxel_by_voxel(how: dict[str, float], item: tuple[int, ...]) -> None:
    patch = (10, 11, 12)
    none = {"translation": 0} if "rotation" in how else {}
    options = {name: value for name, value in how.items() if name != "strength"}
    transform = full(["image", "label"], mode=["bilinear", "nearest"], patch_size=patch, **options, **none)
    transform.strength = how.get("strength", 1.0)
    data = {"image": torch.rand(1, *item), "label": torch.randint(1, 4, (1, *item), dtype=torch.uint8)}
    result = transform.set_random_state(0)(data)
    starts = [(n - p) // 2 for n, p in zip(item, patch, strict=True)]  # negative: so many voxels are padded before
    places = [np.arange(start, start + p) for start, p in zip(starts, patch, strict=True)]
    nearest = np.ix_(*(np.clip(at, 0, n - 1) for at, n in zip(places, item, strict=True)))
    within = [(at >= 0) & (at < n) for at, n in zip(places, item, strict=True)]
    outside = ~np.logical_and.reduce(np.meshgrid(*within, indexing="ij"))
    assert np.allclose(result["image"][0], data["image"][0].numpy()[nearest], atol=1e-5)
    assert np.array_equal(result["label"][0], np.where(outside, 0, data["label"][0].numpy()[nearest]))


@pytest.mark.parametrize("spacing", [[1, 1, 1], [0.5, 0.5, 3]])
def test_an_item_of_the_source_size_needs_no_padding(spacing: list[float]) -> None:
    options = {"rotation": [20, 15, 90], "scale": 0.2, "translation": 0.1, "elastic_magnitude": 1.0}
    transform = RandDeformVolumed("label", patch_size=(20, 24, 10), mode="nearest", spacing=spacing, **options)
    label = torch.ones(1, *transform.source_size((20, 24, 10)), dtype=torch.uint8)
    for seed in range(50):
        assert transform.set_random_state(seed)({"label": label})["label"].min() == 1
    small = torch.ones(1, 20, 24, 10, dtype=torch.uint8)
    assert transform({"label": small})["label"].min() == 0


def test_source_size_of_a_quarter_turn_by_hand() -> None:
    transform = RandDeformVolumed("image", rotation=[0, 0, 90], scale=0.5, spacing=[1, 2, 1])
    # Any angle: 10 + 2 * 6 mm along W and 10 + 12 along H, at half the size twice as far; D is only scaled.
    assert transform.source_size((10, 6, 4)) == (44, 22, 8)


# --- the draw ---


def elastic_field(seed: int, size: tuple[int, ...], **options: object) -> torch.Tensor:
    transform = RandDeformVolumed("image", rotation=0, scale=0, **options)
    return transform.set_random_state(seed)({"image": coordinates(size)})["image"] - coordinates(size)


def test_elastic_displacements_are_as_large_as_their_magnitudes_say() -> None:
    size, n = (36, 36, 12), 300
    options = {"elastic_magnitude": [2.0, 1.0, 0.0], "elastic_spacing": 9.0, "spacing": [1.0, 1.0, 3.0]}
    draws = torch.stack([elastic_field(seed, size, **options)[:, 14:22:4, 14:22:4, 5:7] for seed in range(n)])
    # A share s of U(0, 1) times a normal number: the mean of s squared is 1/3. Upsampling averages between the points.
    center = cubic_weight(size, 9.0)
    for axis, magnitude in enumerate((2.0, 1.0)):
        assert draws[:, axis].std() == pytest.approx(magnitude * center / math.sqrt(3), rel=0.12)
    assert draws[:, 2].abs().max() < 1e-4
    assert ks_2samp(draws[:, 0, 0, 0, 0], 2 * draws[:, 1, 0, 0, 0]).pvalue > 0.01


def cubic_weight(size: tuple[int, ...], spacing_mm: float) -> float:
    """Return the root mean square of the weights of the control points, over the voxels of the test above."""
    total, where = 1.0, (slice(14, 22, 4), slice(14, 22, 4), slice(5, 7))
    for n, gap, at in zip(size, spacing_mm / np.array([1, 1, 3]), where, strict=True):
        points = control_points(n, gap)
        weights = np.stack([cubic_upsampling(row, n, gap) for row in np.eye(points)])[:, at]
        total *= (weights**2).sum(axis=0).mean()
    return math.sqrt(total)


def test_rotations_have_the_distribution_of_monai() -> None:
    degrees, n = [10.0, 20.0, 30.0], 400
    ours = RandDeformVolumed("image", rotation=degrees, scale=0).set_random_state(0)
    theirs = RandAffineGrid(rotate_range=np.radians(degrees).tolist()).set_random_state(1)
    traces = np.empty((2, n))
    for i in range(n):
        ours.randomize(SIZE)
        traces[0, i] = np.trace(ours.deformation(SIZE, SIZE).matrix)
        theirs(spatial_size=SIZE)
        traces[1, i] = np.trace(np.asarray(theirs.get_transformation_matrix())[:3, :3])
    assert ks_2samp(*traces).pvalue > 0.01


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


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    image = {"image": torch.rand(1, *SIZE)}
    whole = full().set_random_state(1)(image)["image"]
    monkeypatch.setattr("bundle.pyraseg.transforms.volume_deformation.SLAB_VOXELS", 5 * SIZE[1] * SIZE[2])
    assert torch.allclose(full().set_random_state(1)(image)["image"], whole, atol=1e-4)


# --- strength ---


def test_strength_scales_the_displacements_of_the_same_draw() -> None:
    options = {"rotation": 0, "scale": 0, "translation": 0.02, "elastic_magnitude": 2, "elastic_spacing": 12}
    transform, ramp = RandDeformVolumed("image", **options), coordinates((32, 32, 32))
    moved = {}
    for strength in (0.5, 1.0):
        assert set_strength(transform, strength) == 1
        moved[strength] = transform.set_random_state(2)({"image": ramp})["image"] - ramp
    assert moved[1.0][INNER].abs().max() > 1
    assert torch.allclose(2 * moved[0.5][INNER], moved[1.0][INNER], atol=1e-3)


@pytest.mark.parametrize("how", [{"strength": 0.0}, {"prob": 0.0}])
def test_no_strength_or_no_draw_leaves_everything_alone(how: dict[str, float]) -> None:
    transform = full(["image", "label"], mode=["bilinear", "nearest"], prob=how.get("prob", 1.0))
    transform.strength = how.get("strength", 1.0)
    data = {"image": torch.rand(1, *SIZE), "label": torch.ones(1, *SIZE, dtype=torch.uint8)}
    result = transform(data)
    assert all(torch.equal(result[key], data[key]) for key in data)


# --- image and label ---


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.float32])
def test_labels_keep_their_values_and_type(dtype: torch.dtype) -> None:
    label = torch.randint(0, 4, (1, *SIZE)).mul(50).to(dtype)
    result = full("label", mode="nearest").set_random_state(0)({"label": label})["label"]
    assert result.dtype == dtype
    assert set(result.unique().tolist()) == {0, 50, 100, 150}
    assert not torch.equal(result, label)


def test_image_and_label_move_together() -> None:
    ball = ((coordinates(SIZE) - torch.tensor([11.0, 15.0, 9.0]).view(3, 1, 1, 1)).norm(dim=0) < 6)[None]
    data = {"image": ball.float(), "label": ball.to(torch.uint8)}
    result = full(["image", "label"], mode=["bilinear", "nearest"]).set_random_state(1)(data)
    assert (ball.float() - result["image"]).abs().mean() > 0.02
    # Nearest takes the voxel that weighs most in the linear mean, and a ball's surface is nearly a plane.
    assert ((result["image"] > 0.5) == result["label"].bool()).float().mean() > 0.98


@pytest.mark.parametrize(("dtype", "expected"), [(torch.int16, torch.float32), (torch.float16, torch.float16)])
@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_integer_images_become_float_drawn_or_not(prob: float, dtype: torch.dtype, expected: torch.dtype) -> None:
    result = full(prob=prob)({"image": torch.ones(1, *SIZE, dtype=dtype)})["image"]
    assert result.dtype == expected
    assert torch.all(result == 1)


def test_metadata_survive() -> None:
    image = MetaTensor(torch.rand(1, *SIZE), meta={"spacing_between_slices": 2.0})
    for patch in (None, (8, 8, 8)):
        for prob in (0.0, 1.0):
            result = full(patch_size=patch, prob=prob).set_random_state(0)({"image": image})["image"]
            assert isinstance(result, MetaTensor)
            assert result.meta["spacing_between_slices"] == 2.0


# --- refusals ---


@pytest.mark.parametrize(
    "option",
    [
        {"rotation": -1},
        {"rotation": [1, 2]},
        {"scale": 1.0},
        {"elastic_magnitude": -3},
        {"elastic_spacing": 0},
        {"spacing": [1, 0, 1]},
        {"patch_size": [0, 8, 8]},
        {"translation": math.nan},
        {"mode": "bicubic"},
        {"padding_mode": "reflection"},
    ],
)
def test_refuses_impossible_arguments(option: dict[str, object]) -> None:
    with pytest.raises(PyrasegError, match=next(iter(option))):
        RandDeformVolumed("image", **option)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 8, 8, 9), (8, 8)])
def test_refuses_slices_and_unequal_sizes(shape: tuple[int, ...]) -> None:
    with pytest.raises(PyrasegError, match=r"'label' has the shape .* volumes \(C, W, H, D\) of one size"):
        full(["image", "label"])({"image": torch.zeros(1, 8, 8, 8), "label": torch.zeros(shape)})


def test_missing_keys() -> None:
    assert full("label", allow_missing_keys=True)({"other": 1}) == {"other": 1}
    with pytest.raises(KeyError, match="label"):
        full(["image", "label"])({"image": torch.zeros(1, *SIZE)})
