# SPDX-License-Identifier: Apache-2.0
"""Slices or volumes, and the grid in 3-D: rules on sizes that are known, and what networks make of the result."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.pyraseg.networks import VolumePSPNet
from bundle.pyraseg_tools.fingerprint import (
    CaseFingerprint,
    VolumeSizes,
    choose_form,
    volume_patch,
    volume_rotation,
    volume_sizes,
    volume_spacing,
)
from bundle.pyraseg_tools.fingerprint.measuring import measure

HIPPOCAMPUS = VolumeSizes((1, 1, 1), (1, 1, 1), (35, 50, 36), slices=36, showing=14, across=14)
ABDOMEN = VolumeSizes((0.8, 0.8, 5), (0.7, 0.7, 5), (410, 410, 200), slices=40, showing=10, across=60)
THIN_ABDOMEN = VolumeSizes((0.8, 0.8, 1.5), (0.7, 0.7, 1), (410, 410, 300), slices=200, showing=50, across=60)
SAGITTAL = VolumeSizes((4, 0.6, 0.6), (4, 0.5, 0.5), (80, 190, 190), slices=20, showing=8, across=30)


def made(size=(12, 10, 6), voxel=(1.0, 1.0, 3.0), turned=(0, 1, 2), box=np.s_[2:6, 2:6, 1:4]) -> CaseFingerprint:
    """Return the fingerprint of a box; axis k of the file runs along axis `turned[k]` of the patient."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, of in enumerate(turned):
        affine[of, axis] = -voxel[axis] if of < 2 else voxel[axis]
    label = np.zeros(size, np.uint8)
    label[box] = 1
    image = MetaTensor(torch.tensor(np.random.default_rng(0).normal(size=(1, *size))), affine=affine)
    return CaseFingerprint({}, "a", "training", **measure(image, MetaTensor(label[None], affine=affine), classes=2))


def test_sizes_are_along_the_axes_of_the_patient():
    straight, turned = (volume_sizes([made(turned=order)]) for order in ((0, 1, 2), (1, 2, 0)))
    assert straight is not None and turned is not None
    assert (straight.spacing, straight.extent) == ((1, 1, 3), (12, 10, 18))
    assert (turned.spacing, turned.extent) == ((3, 1, 1), (18, 12, 10))  # slices from right to left
    assert straight.slices == turned.slices == 6 and straight.showing == 3
    assert straight.across == pytest.approx((6 * 4 * 4 * 3 * 3 / np.pi) ** (1 / 3))


def test_a_median_is_over_cases_and_images_without_a_third_dimension_have_no_sizes():
    sizes = volume_sizes([made(voxel=(1, 1, depth)) for depth in (2, 3, 10)])
    assert sizes is not None and sizes.spacing == (1, 1, 3)
    flat = CaseFingerprint({}, "b", "training", size=(40, 40), counts=np.ones((1, 2), np.int64))
    assert volume_sizes([made(), flat]) is None


@pytest.mark.parametrize(
    ("sizes", "patches", "form", "why"),
    [
        (HIPPOCAMPUS, None, "volumes", "36 slices"),
        (HIPPOCAMPUS, 2400, "volumes", "2400 patches"),
        (HIPPOCAMPUS, 120, "slices", "sees 120 patches"),
        (THIN_ABDOMEN, None, "volumes", "200 slices"),
        (ABDOMEN, None, "slices", "6.2 times as long along their longest axis, 5 mm"),
        (SAGITTAL, None, "slices", "times as long"),
        (HIPPOCAMPUS._replace(slices=1), None, "slices", "1 slices"),
        (HIPPOCAMPUS._replace(showing=2), None, "slices", "shows a class in 2 slices"),
        (None, None, "slices", "patient geometry"),
    ],
)
def test_the_choice_has_a_reason(sizes, patches, form, why):
    chosen, reason = choose_form(sizes, patches)
    assert chosen == form and why in reason


def test_the_spacing_is_the_median_and_thin_slices_among_thick_ones_are_kept():
    assert volume_spacing(HIPPOCAMPUS, 10**6).value == [1, 1, 1]
    assert volume_spacing(ABDOMEN, 10**9).value == [0.8, 0.8, 5]
    mixed = volume_spacing(ABDOMEN._replace(fine_spacing=(0.7, 0.7, 2.5)), 10**9)
    assert mixed.value == [0.8, 0.8, 2.5] and "10th percentile" in mixed.reason
    assert volume_spacing(ABDOMEN._replace(fine_spacing=(0.7, 0.7, 0.3)), 10**9).value == [0.8, 0.8, 0.8]


def test_a_small_patch_makes_voxels_coarser_but_no_smaller_class_is_lost():
    coarser = volume_spacing(THIN_ABDOMEN, 96**3)
    spacing = np.array(coarser.value)
    seen = np.prod(np.array(THIN_ABDOMEN.extent) / spacing)
    assert 3.6 * 96**3 < seen <= 4.05 * 96**3  # a quarter of a volume
    assert spacing[0] == spacing[1] > 0.8 and "coarser" in coarser.reason
    small = np.array(volume_spacing(THIN_ABDOMEN._replace(across=9), 32**3).value)
    assert 1.5 <= small.min() < 1.55  # six voxels across 9 mm


@pytest.mark.parametrize("sizes", [HIPPOCAMPUS, ABDOMEN, THIN_ABDOMEN, SAGITTAL])
@pytest.mark.parametrize("voxels", [8_000, 90_000, 96**3])
def test_a_patch_fits_and_its_sides_are_multiples_of_the_networks_strides(sizes, voxels):
    spacing = volume_spacing(sizes, voxels).value
    patch, channels = volume_patch(sizes, spacing, voxels)
    network = VolumePSPNet(
        in_channels=1, out_channels=2, spacing=spacing, patch_size=patch.value, channels=channels.value
    )
    assert all(side % multiple == 0 for side, multiple in zip(patch.value, network.multiples, strict=True))
    assert max(side / multiple for side, multiple in zip(patch.value, network.multiples, strict=True)) >= 4
    assert np.prod(patch.value) <= voxels
    shape = np.rint(np.array(sizes.extent) / spacing)
    assert all(
        side < of + multiple for side, of, multiple in zip(patch.value, shape, network.multiples, strict=True)
    )  # no more than the volume, rounded up


def test_the_hippocampus_is_seen_whole():
    patch, channels = volume_patch(HIPPOCAMPUS, [1, 1, 1], 96**3)
    assert (patch.value, channels.value) == ([40, 56, 40], [16, 32, 64, 128])  # as its task has them
    assert "median volume" in patch.reason


def test_where_voxels_are_long_rotation_stays_in_the_plane():
    assert volume_rotation([1, 1, 2]).value == 15
    assert volume_rotation([0.8, 0.8, 5]).value == [0, 0, 15]
    assert volume_rotation([4, 0.6, 0.6]).value == [15, 0, 0]
