# SPDX-License-Identifier: Apache-2.0
"""Axes and spacing of volumes, judged by MONAI's and torch's own, by closed forms, and by where voxels lie in mm."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Orientationd
from scipy.ndimage import center_of_mass

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import read_series
from bundle.pyraseg.transforms import OrientVolumesd, ResampleVolumesd, from_dicom
from tests.helpers.dicom_files import CORONAL, SAGITTAL, write_series

ALIGNED = [
    np.eye(3)[:, list(order)] * signs for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]
SPACING = np.diag([0.7, 1.2, 3.0])
TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0], [0.48, 0.64, 0.6]])


def affine_of(directions: np.ndarray) -> np.ndarray:
    return nib.affines.from_matvec(directions @ SPACING, [11, -7, 5])


def volume(directions: np.ndarray, shape: tuple[int, ...] = (9, 8, 7)) -> MetaTensor:
    values = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    return MetaTensor(values, affine=torch.as_tensor(affine_of(directions)))


def resample(image: MetaTensor, spacing: list[float], mode: str = "bilinear") -> MetaTensor:
    return ResampleVolumesd("image", spacing=spacing, mode=mode)({"image": image})["image"]


@pytest.mark.parametrize("directions", ALIGNED)
def test_axes_are_those_of_monai(directions: np.ndarray) -> None:
    image = volume(directions)
    found = OrientVolumesd("image")({"image": image})["image"]
    expected = Orientationd("image", axcodes="LPS", labels=None)({"image": image})["image"]
    assert nib.aff2axcodes(found.affine.numpy()) == ("L", "P", "S")
    assert torch.equal(found.as_tensor(), expected.as_tensor())
    torch.testing.assert_close(found.affine, expected.affine)


@pytest.mark.parametrize("directions", [TURN, *ALIGNED[::7]])
def test_the_inverse_brings_every_voxel_back(directions: np.ndarray) -> None:
    image = volume(directions)
    chain = Compose([OrientVolumesd("image"), ResampleVolumesd("image", spacing=[0.7, 0.7, 0.7], mode="nearest")])
    item = chain({"image": image})
    back = Invertd("pred", chain, "image")({"image": item["image"], "pred": item["image"]})["pred"]
    assert torch.equal(back.as_tensor(), image.as_tensor())  # the voxels became smaller: none is lost
    torch.testing.assert_close(back.affine, image.affine)


@pytest.mark.parametrize("spacing", [[0.7, 1.2, 3.0], [1.5, 2.9, 7.0], [0.4, 0.5, 1.1], [1.0, 1.0, 1.0]])
def test_values_are_those_of_torch_one_axis_after_the_other(spacing: list[float]) -> None:
    image = volume(np.eye(3), (23, 18, 14))
    found = resample(image, spacing)
    size = tuple(round(n * a / b) for n, a, b in zip(image.shape[1:], np.diag(SPACING), spacing, strict=True))
    assert found.shape[1:] == size and found.dtype == torch.float32
    plane = image.as_tensor().permute(3, 0, 1, 2)  # torch's antialiased filter has two axes
    plane = F.interpolate(plane, size[:2], mode="bilinear", antialias=True).permute(1, 2, 3, 0)
    flat = plane.reshape(1, 1, -1, plane.shape[-1])
    expected = F.interpolate(flat, (flat.shape[2], size[2]), mode="bilinear", antialias=True).reshape(2, *size)
    torch.testing.assert_close(found.as_tensor(), expected, atol=2e-6, rtol=0)
    labels = resample(image, spacing, "nearest")
    torch.testing.assert_close(
        labels.as_tensor(), F.interpolate(image.as_tensor()[None], size, mode="nearest-exact")[0]
    )


def test_a_label_keeps_its_type_and_its_place() -> None:
    """The center of a ball stays where it is in mm, for image and label alike."""
    grid = np.stack(np.meshgrid(*map(np.arange, (60, 50, 24)), indexing="ij"), axis=-1)
    center = np.array([31.0, 22.0, 11.0])
    ball = (np.linalg.norm((grid - center) @ SPACING, axis=-1) < 12).astype(np.uint8)
    affine = affine_of(TURN)
    item = {"image": MetaTensor(ball[None].astype(np.float32), affine=affine), "label": MetaTensor(ball[None], affine)}
    chain = Compose(
        [
            OrientVolumesd(["image", "label"]),
            ResampleVolumesd(["image", "label"], spacing=[1.1, 0.9, 2.0], mode=["bilinear", "nearest"]),
        ]
    )
    done = chain(item)
    assert done["label"].dtype == torch.uint8 and set(done["label"].unique().tolist()) == {0, 1}
    truth = nib.affines.apply_affine(affine, center)
    for key, tolerance in (("image", 0.02), ("label", 0.2)):  # mm; half a voxel would be 0.35 at least
        found = center_of_mass(done[key][0].numpy())
        place = nib.affines.apply_affine(done[key].affine.numpy(), found)
        np.testing.assert_allclose(place, truth, atol=tolerance)


def test_the_inverse_of_probabilities_is_linear() -> None:
    orient = OrientVolumesd("image")
    chain = Compose([orient, ResampleVolumesd("image", spacing=[1.5, 1.0, 4.0])])
    image = volume(ALIGNED[5], (20, 17, 9))
    item = chain({"image": image})
    pred = MetaTensor(torch.rand(3, *item["image"].shape[1:]))
    found = Invertd("pred", chain, "image", nearest_interp=False)({**item, "pred": pred})["pred"]
    plain = orient({"image": image})["image"]
    large = F.interpolate(pred.as_tensor()[None], plain.shape[1:], mode="trilinear")[0]
    expected = Invertd("pred", orient, "image")({"image": plain, "pred": MetaTensor(large)})["pred"]
    torch.testing.assert_close(found.as_tensor(), expected.as_tensor(), atol=3e-6, rtol=0)
    torch.testing.assert_close(found.affine, image.affine)


def loaded(folder: Path, **options: object) -> MetaTensor:
    random = np.random.default_rng(0).integers(0, 99, (5, 12, 10)).astype(np.int16)
    write_series(folder, random, **options)
    values, meta = from_dicom(read_series(folder))
    return MetaTensor(values[None], meta={**meta, "filename_or_obj": "the series"})


@pytest.mark.parametrize(
    "options",
    [{}, {"orientation": CORONAL}, {"orientation": SAGITTAL}, {"slice_step": -2.0}, {"slice_step": [0, 0.1, 2.5]}],
    ids=["axial", "coronal", "sagittal", "downwards", "tilted a little"],
)
def test_dicom_series_of_any_plane_become_volumes(tmp_path: Path, options: dict) -> None:
    oriented = OrientVolumesd("image")({"image": loaded(tmp_path, **options)})["image"]
    assert nib.aff2axcodes(oriented.affine.numpy()) == ("L", "P", "S")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"per_slice": lambda k: {"ImagePositionPatient": [0, 0, 2 * k + 6 * (k > 2)]}}, "slices 2 to 8 mm apart"),
        ({"slice_step": [0, 1, 2.5]}, "tilted by 21.8 degrees"),
    ],
    ids=["a gap", "a tilted gantry"],
)
def test_stacks_on_no_regular_grid_are_refused_with_the_way_out(tmp_path: Path, options: dict, reason: str) -> None:
    with pytest.raises(PyrasegError, match=reason) as error:
        OrientVolumesd("image")({"image": loaded(tmp_path, **options)})
    assert "the series" in str(error.value) and "task for slices" in str(error.value)


def test_images_without_a_place_are_refused() -> None:
    with pytest.raises(PyrasegError, match="no patient position"):
        OrientVolumesd("image")({"image": MetaTensor(torch.zeros(1, 5, 4))})


@pytest.mark.parametrize("spacing", [2.0, [1, 1], [1, 0, 1]])
def test_a_spacing_is_three_positive_numbers(spacing: object) -> None:
    with pytest.raises(PyrasegError, match="three numbers above 0"):
        ResampleVolumesd("image", spacing=spacing)


def test_a_size_that_no_memory_holds_is_refused() -> None:
    with pytest.raises(PyrasegError, match="Correct the unit"):
        resample(MetaTensor(torch.zeros(1, 50, 50, 20), affine=np.diag([900.0, 900, 900, 1])), [1, 1, 1])
    with pytest.raises(PyrasegError, match="Correct the unit"):
        resample(MetaTensor(torch.zeros(1, 50, 50, 20), affine=np.diag([0.001, 0.001, 0.001, 1])), [1, 1, 1])
