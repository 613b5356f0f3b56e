# SPDX-License-Identifier: Apache-2.0
"""A letter F from DICOM through the inference config's own transforms and back, compared in patient millimeters.

The truth is the set of voxel centers that pydicom and the formula of PS3.3 C.7.6.2.1.1 give for the files, so that a
mistake made on the way in and undone on the way out does not pass.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from scipy.spatial import cKDTree

from bundle.pyraseg.inference.writers.label_map import write_label_map
from tests.helpers.dicom_files import PATIENT, write_series
from tests.helpers.segmented_series import SIZE, STACKS, STEP, letter_f

CONFIG = Path(__file__).parents[2] / "configs" / "inference.json"
NEARLY_SQUARE = (0.802, 0.799)  # rows, columns: at a spacing of 0.8 mm the size of these slices stays as it is
OBLONG = (1.0, 0.8)
MODEL_SPACINGS = [0.6, 1.2]  # finer than both pixel sizes, and coarser


def make_series(folder: Path, stack: str, spacing: tuple[float, float]) -> list[Path]:
    orientation, step = STACKS[stack]
    stored = np.where(letter_f(), 1000, 0).astype(np.int16)
    names = [f"{name}.dcm" for name in ("q", "b", "x", "a")]
    where = {"orientation": orientation, "slice_step": step, "origin": (-31.5, 42.25, 100.75)}
    return write_series(folder, stored, **where, spacing=spacing, names=names, SliceThickness=STEP, **PATIENT)


def copy_mask(image: torch.Tensor) -> torch.Tensor:
    """Stand in for a network: threshold windowed slices (B, 1, W, H) and return logits of background and letter."""
    letter = (image > 0).float()
    return 10 * torch.cat([1 - letter, letter], dim=1)


def segment(folder: Path, spacing: float, **options: object) -> tuple[MetaTensor, MetaTensor]:
    """Run the config's preprocessing, inferer and postprocessing; return the image of the network and the labels."""
    parser = ConfigParser()
    parser.read_config(CONFIG)
    parser.update({"spacing": spacing, "windows": [{"center": 500, "width": 1001}], **options})
    data = parser.get_parsed_content("preprocessing")({"image": str(folder)})
    middle = data["image"].shape[0] // 2  # the slice itself, among its neighbors
    inferer = parser.get_parsed_content("inferer")
    data["pred"] = inferer(data["image"][None], lambda slices: copy_mask(slices[:, middle : middle + 1]))[0]
    return data["image"], parser.get_parsed_content("postprocessing")(data)["pred"]


def truth_in_mm(folder: Path) -> np.ndarray:
    """Return the centers of the letter's voxels, (N, 3) LPS mm, from the files alone."""
    points = []
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        row, column = np.nonzero(dataset.pixel_array > 500)
        cosines = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
        offsets = np.outer(column * dataset.PixelSpacing[1], cosines[0])
        offsets += np.outer(row * dataset.PixelSpacing[0], cosines[1])
        points.append(np.array(dataset.ImagePositionPatient, float) + offsets)
    return np.concatenate(points)


def points_in_mm(labels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the centers of labeled voxels, (N, 3) LPS mm, from an array (W, H, D) and its affine to RAS."""
    return nib.affines.apply_affine(affine, np.argwhere(labels)) * [-1, -1, 1]


def overlap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the intersection over union of two sets of voxel centers; centers within 0.02 mm are the same."""
    distances, partners = cKDTree(theirs).query(ours)
    shared = len(set(partners[distances < 0.02].tolist()))
    return shared / (len(ours) + len(theirs) - shared)


@pytest.mark.parametrize("stack", STACKS)
def test_at_native_size_every_voxel_comes_back(tmp_path: Path, stack: str) -> None:
    make_series(tmp_path, stack, NEARLY_SQUARE)
    image, labels = segment(tmp_path, 0.8)
    assert sorted(image.shape[1:3]) == sorted(SIZE[1:])
    truth = truth_in_mm(tmp_path)
    assert len(truth) == letter_f().sum()
    assert overlap(points_in_mm(labels[0].numpy(), labels.affine.numpy()), truth) == 1.0
    assert np.array_equal(labels[0], letter_f().transpose(2, 1, 0))  # the files' own rows, columns and slices


@pytest.mark.parametrize("spacing", MODEL_SPACINGS)
@pytest.mark.parametrize("stack", STACKS)
def test_through_resizing_the_letter_comes_back(tmp_path: Path, stack: str, spacing: float) -> None:
    make_series(tmp_path, stack, OBLONG)
    image, labels = segment(tmp_path, spacing)
    assert sorted(image.shape[1:3]) == sorted(round(n * mm / spacing) for n, mm in zip(SIZE[1:], OBLONG, strict=True))
    assert labels.shape == (1, *SIZE[::-1])
    assert overlap(points_in_mm(labels[0].numpy(), labels.affine.numpy()), truth_in_mm(tmp_path)) >= 0.98
    found, stored = labels[0].numpy() > 0, letter_f().transpose(2, 1, 0)
    assert (found & stored).sum() / (found | stored).sum() >= 0.98  # on the files' own grid, too


def test_the_letter_tells_every_mirror_image_apart(tmp_path: Path) -> None:
    make_series(tmp_path, "axial", OBLONG)
    _, labels = segment(tmp_path, 1.2)
    for axis in range(3):
        mirrored = points_in_mm(np.flip(labels[0].numpy(), axis), labels.affine.numpy())
        assert overlap(mirrored, truth_in_mm(tmp_path)) < 0.9


@pytest.mark.parametrize("context_slices", [1, 2])
def test_neighboring_slices_as_channels_change_nothing(tmp_path: Path, context_slices: int) -> None:
    make_series(tmp_path, "oblique", NEARLY_SQUARE)
    image, labels = segment(tmp_path, 0.8, context_slices=context_slices)
    assert image.shape[0] == 2 * context_slices + 1
    assert overlap(points_in_mm(labels[0].numpy(), labels.affine.numpy()), truth_in_mm(tmp_path)) == 1.0


@pytest.mark.parametrize("stack", ["sagittal", "oblique", "tilted gantry"])
def test_the_nifti_that_is_written_lies_on_the_letter(tmp_path: Path, stack: str) -> None:
    make_series(tmp_path / "series", stack, NEARLY_SQUARE)
    _, labels = segment(tmp_path / "series", 0.8)
    image = nib.load(write_label_map(labels, labels, tmp_path / "labels"))
    assert overlap(points_in_mm(np.asarray(image.dataobj), image.affine), truth_in_mm(tmp_path / "series")) == 1.0
