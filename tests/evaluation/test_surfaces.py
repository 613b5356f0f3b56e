# SPDX-License-Identifier: Apache-2.0
"""Distances of surfaces against DeepMind's surface-distance, MONAI, and closed forms."""

import numpy as np
import pytest
import surface_distance
import torch
from monai.data import MetaTensor
from monai.metrics import compute_surface_dice
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from bundle.pyraseg.dicom.geometry import Geometry
from bundle.pyraseg.evaluation.surfaces import hausdorff, surface_dice, surface_distances
from bundle.pyraseg.transforms.reader import geometry_of

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.8, 5.0), (5.0, 0.8, 0.7)]


def volume(shape: tuple[int, ...], spacing: tuple[float, ...]) -> Geometry | None:
    return geometry_of(MetaTensor(torch.zeros(1, *shape), affine=np.diag([*spacing, 1.0])))


def random_masks(seed: int, shape: tuple[int, ...] = (20, 24, 12)) -> tuple[np.ndarray, np.ndarray]:
    """Return two masks that reach every border, with holes and specks, and differ at many places."""
    random = np.random.default_rng(seed)
    truth = gaussian_filter(random.standard_normal(shape), 2) > 0
    return truth ^ (gaussian_filter(random.standard_normal(shape), 1.5) > 0.1), truth


# --- against other implementations ---


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(3))
def test_volumes_as_surface_distance_has_them(spacing, seed):
    prediction, truth = random_masks(seed)
    assert all(mask[index].any() for mask in (prediction, truth) for index in (0, -1))
    found = surface_distances(prediction, truth, volume(truth.shape, spacing))
    expected = surface_distance.compute_surface_distances(truth, prediction, spacing)
    for percent in (50, 95, 100):
        reference = surface_distance.compute_robust_hausdorff(expected, percent)
        assert hausdorff(found, percent) == pytest.approx(reference, rel=1e-5)
    for tolerance in (0.5, 1.1, 2.3):
        reference = surface_distance.compute_surface_dice_at_tolerance(expected, tolerance)
        assert surface_dice(found, tolerance) == pytest.approx(reference, abs=1e-5)
        ours = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
        options = {"class_thresholds": [tolerance], "include_background": True, "use_subvoxels": True}
        assert surface_dice(found, tolerance) == pytest.approx(
            compute_surface_dice(*ours, spacing=spacing, **options).item(), abs=1e-5
        )


@pytest.mark.parametrize("seed", range(3))
def test_pictures_as_surface_distance_has_them(seed):
    prediction, truth = random_masks(seed, (40, 30))
    grid = geometry_of(MetaTensor(torch.zeros(3, 40, 30)))
    found = surface_distances(prediction, truth, grid)
    expected = surface_distance.compute_surface_distances(truth, prediction, (1, 1))
    assert grid is None
    assert hausdorff(found) == pytest.approx(surface_distance.compute_robust_hausdorff(expected, 95), rel=1e-5)


def test_the_largest_distance_is_that_of_all_pairs():
    """SciPy's matrix of distances between the corners, which are where the eight voxels around are not all alike."""
    prediction, truth = random_masks(5, (9, 8, 6))
    spacing = np.array([0.7, 0.8, 3.0])
    corners = []
    for mask in (prediction, truth):
        padded = np.pad(mask, 1).astype(int)
        around = sum(
            padded[i : i + 10, j : j + 9, k : k + 7] for i in (0, 1) for j in (0, 1) for k in (0, 1)
        )  # fmt: skip
        corners.append(np.argwhere((around > 0) & (around < 8)) * spacing)
    pairs = cdist(*corners)
    expected = max(pairs.min(axis=0).max(), pairs.min(axis=1).max())
    found = surface_distances(prediction, truth, volume(truth.shape, tuple(spacing)))
    assert hausdorff(found, 100) == pytest.approx(expected)


# --- closed forms ---


def test_a_slab_that_is_shifted_by_a_thick_slice():
    truth, prediction = np.zeros((2, 30, 30, 12), bool)
    truth[:, :, 4:8], prediction[:, :, 5:9] = True, True  # both reach the border on four sides
    grid = volume(truth.shape, (1.0, 1.0, 4.0))
    found = surface_distances(prediction, truth, grid)
    assert hausdorff(found, 100) == pytest.approx(4.0)
    assert surface_dice(found, 4.0) == pytest.approx(1.0)
    # Two faces of 30 x 30 lie 4 mm off, and of the four sides the half slice at the rim. Rounded edges blur that.
    expected = 1 - (2 * 900 + 4 * 30 * 2) / (2 * 900 + 4 * 30 * 16)
    assert surface_dice(found, 1.0) == pytest.approx(expected, abs=0.06)


def test_equal_masks_of_one_voxel_at_the_border():
    mask = np.zeros((5, 6, 7), bool)
    mask[0, 5, 6] = True
    found = surface_distances(mask, mask, volume(mask.shape, (1, 1, 1)))
    assert (hausdorff(found), surface_dice(found, 0.0)) == (0.0, 1.0)


def test_two_far_voxels_lie_as_far_apart_as_their_centers():
    prediction, truth = np.zeros((2, 20, 20, 20), bool)
    prediction[1, 1, 1], truth[18, 15, 11] = True, True
    found = surface_distances(prediction, truth, volume(truth.shape, (1, 2, 0.5)))
    # The nearest corner of the other voxel is a voxel nearer; the far ones are as far as the centers.
    assert hausdorff(found, 100) == pytest.approx(np.linalg.norm([17, 28, 5]), abs=np.linalg.norm([1, 2, 0.5]))
    assert surface_dice(found, 2.0) == 0.0


# --- where the voxels lie ---


def stack(positions: np.ndarray) -> Geometry | None:
    """Return the grid of axial slices of 1 mm pixels at these positions (D, 3), in DICOM's LPS mm."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1) * (-1, -1, 1)
    affine[:3, 3] = positions[0] * (-1, -1, 1)
    meta = {"slice_positions": positions, "has_geometry": True}
    return geometry_of(MetaTensor(torch.zeros(1, 40, 40, len(positions)), affine=affine, meta=meta))


def test_a_tilted_stack_is_measured_in_the_patient_not_along_its_axes():
    """A plane that stands upright in the patient drifts through the columns of a tilted stack."""
    steps = np.arange(10)[:, None]
    grid = stack(steps * np.array([0, 2.0, 4.0]))  # 2 mm in y for 4 mm in z
    truth, prediction = np.zeros((2, 40, 40, 10), bool)
    for k in range(10):
        truth[:, 30 - 2 * k :, k] = True
        prediction[:, 25 - 2 * k :, k] = True
    truth[:, :, [0, -1]] = prediction[:, :, [0, -1]] = False  # both end alike
    for mask in (truth, prediction):
        mask[:3] = mask[-3:] = False
    distances = surface_distances(prediction, truth, grid)
    assert hausdorff(distances, 95) == pytest.approx(5.0, abs=0.2)
    assert grid.spacing == pytest.approx((1, 1, 4))  # the thickness along the normal, not the length of a step
    assert grid.voxel_volumes == pytest.approx([4] * 10)


def test_masks_end_at_a_gap():
    positions = np.zeros((6, 3))
    positions[:, 2] = [0, 1, 2, 12, 13, 14]
    grid = stack(positions)
    assert grid.voxel_volumes == pytest.approx([1] * 6)
    truth, prediction = np.zeros((2, 40, 40, 6), bool)
    truth[10:30, 10:30, 2], prediction[10:30, 10:30, 3] = True, True
    # From the corners below slice 2, at 1.5 mm, to those below slice 3, at 11.5; above the slices likewise.
    assert hausdorff(surface_distances(prediction, truth, grid), 100) == pytest.approx(10)
