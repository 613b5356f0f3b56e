# SPDX-License-Identifier: Apache-2.0
"""Orientation of slices, judged by nibabel's axis codes and by where each voxel lies in the patient."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from bundle.pyraseg.dicom.affines import slice_orientation
from bundle.pyraseg.transforms.slices import OrientSlicesd

SHAPE = (5, 4, 3)
SPACING = np.diag([0.7, 1.2, 3.0])
#: What each axis shall grow towards, by the patient axis that the slices are stacked along.
DISPLAY = {"R": ("P", "I", "L"), "A": ("L", "I", "P"), "S": ("L", "P", "S")}
AXIS = {"R": "R", "L": "R", "A": "A", "P": "A", "S": "S", "I": "S"}


def affine_of(directions: np.ndarray) -> np.ndarray:
    return nib.affines.from_matvec(directions @ SPACING, [11, -7, 5])


def turned(axis: int, degrees: float) -> np.ndarray:
    """Return a rotation about a patient axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    first, second = (k for k in range(3) if k != axis)
    matrix[[first, first, second, second], [first, second, first, second]] = c, -s, s, c
    return matrix


ALIGNED = [
    np.eye(3)[:, list(order)] * signs for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]
TILT = np.eye(3) + np.outer([0, 0.35, 0], [0, 0, 1])  # moves slices sideways, by 19 degrees
OBLIQUE = [turned(0, 25), turned(1, -30) @ turned(2, 20), turned(2, 40) @ turned(0, 15), TILT]


def volume(affine: np.ndarray) -> MetaTensor:
    """Return two channels in which every voxel has a value of its own."""
    values = torch.arange(np.prod(SHAPE), dtype=torch.float32).reshape(1, *SHAPE)
    return MetaTensor(torch.cat([values, -values]), affine=affine)


def orient(image: MetaTensor) -> MetaTensor:
    return OrientSlicesd("image")({"image": image})["image"]


@pytest.mark.parametrize("directions", [turn @ base for turn in [np.eye(3), *OBLIQUE] for base in ALIGNED])
def test_slices_are_displayed_as_stated_and_no_voxel_moves(directions: np.ndarray) -> None:
    image = volume(affine_of(directions))
    result = orient(image)
    # nibabel's codes, of the plane by its normal: a tilt does not count.
    plane = image.affine.numpy().copy()
    plane[:3, 2] = np.cross(plane[:3, 0], plane[:3, 1])
    shown = result.affine.numpy().copy()
    shown[:3, 2] = np.sign(shown[:3, 2] @ plane[:3, 2]) * plane[:3, 2]
    assert nib.aff2axcodes(shown) == DISPLAY[AXIS[nib.aff2axcodes(plane)[2]]]
    # Every voxel of the result has the value of the voxel that was at its position in the patient.
    indices = np.stack(np.meshgrid(*map(range, result.shape[1:]), indexing="ij"), axis=-1).reshape(-1, 3)
    places = nib.affines.apply_affine(result.affine.numpy(), indices)
    before = nib.affines.apply_affine(np.linalg.inv(image.affine.numpy()), places)
    assert np.allclose(before, np.rint(before), atol=1e-6)
    i, j, k = np.rint(before).astype(int).T
    assert np.array_equal(result.numpy().reshape(2, -1), image.numpy()[:, i, j, k])
    # A slice has the pixels of one slice.
    assert all(len(set(slices)) == 1 for slices in k.reshape(-1, SHAPE[2]).T)


@pytest.mark.parametrize("directions", [turn @ base for turn in [np.eye(3), TILT] for base in ALIGNED])
def test_invertd_restores_array_and_affine(directions: np.ndarray) -> None:
    image = volume(affine_of(directions))
    transform = Compose([OrientSlicesd("image")])
    shown = transform({"image": image})
    shown["pred"] = MetaTensor(torch.cat([shown["image"].as_tensor(), 2 * shown["image"].as_tensor()[:1]]))
    back = Invertd("pred", transform=transform, orig_keys="image", nearest_interp=False)(shown)["pred"]
    assert np.array_equal(back, np.concatenate([image, 2 * image[:1]]))
    assert np.allclose(back.affine, image.affine)


def test_orientation_is_its_own_goal() -> None:
    for directions in ALIGNED:
        shown = orient(volume(affine_of(directions))).affine.numpy()
        assert np.array_equal(slice_orientation(shown), [[0, 1], [1, 1], [2, 1]])


def test_a_photograph_stays_as_it_is() -> None:
    photograph = MetaTensor(torch.rand(3, 5, 4))
    transform = Compose([OrientSlicesd("image")])
    shown = transform({"image": photograph})
    assert torch.equal(shown["image"], photograph)
    assert torch.equal(transform.inverse(shown)["image"], photograph)
