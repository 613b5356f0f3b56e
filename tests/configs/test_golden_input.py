# SPDX-License-Identifier: Apache-2.0
"""What the network is shown: the same in training, validation and inference, and what the formulas say."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.transforms import ScaleIntensityRangePercentiles
from PIL import Image

from tests.helpers.configs import PROGRAMS, TASKS, merged
from tests.helpers.dicom_files import write_series

ROWS, COLUMNS = 20, 24


def ct_case(
    folder: Path, windows: Sequence[tuple[float, float]] = ((90, 180), (40, 400), (0, 1000))
) -> tuple[dict[str, str], np.ndarray, dict[str, object]]:
    """Write an axial series at the target spacing; return it, what its windows give, and the settings."""
    hu = np.random.default_rng(1).integers(-900, 900, (3, ROWS, COLUMNS)).astype(np.int16)
    write_series(folder / "ct", hu, spacing=(2.0, 2.0), RescaleSlope=1, RescaleIntercept=0)
    nib.save(nib.Nifti1Image(np.zeros((COLUMNS, ROWS, 3), np.uint8), affine_of(folder)), folder / "label.nii.gz")
    channels = []
    for center, width in windows:  # PS3.3 C.11.2.1.2.1, scaled to [-1, 1]
        channels.append(np.clip((hu - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 2 - 1)
    windowed = np.stack(channels).transpose(0, 3, 2, 1)
    before, after = (windowed[..., order] for order in ([0, 0, 1], [1, 2, 2]))  # the rim stands in for what is beyond
    expected = np.concatenate([before, windowed, after])
    items = {"image": str(folder / "ct"), "label": str(folder / "label.nii.gz")}
    return items, expected, {"spacing": 2.0, "context_slices": 1}


def affine_of(folder: Path) -> np.ndarray:
    """Return the RAS affine of the series as pydicom's headers give it."""
    import pydicom

    headers = sorted((pydicom.dcmread(p) for p in (folder / "ct").iterdir()), key=lambda h: h.ImagePositionPatient[2])
    step = np.subtract(headers[1].ImagePositionPatient, headers[0].ImagePositionPatient)
    row, column = np.reshape(headers[0].ImageOrientationPatient, (2, 3))
    affine = np.eye(4)
    affine[:3] = np.column_stack([2.0 * row, 2.0 * column, step, headers[0].ImagePositionPatient])
    return np.diag([-1, -1, 1, 1]) @ affine


def photograph(folder: Path) -> tuple[dict[str, str], np.ndarray, dict[str, object]]:
    """Write a photograph of the target size; return it, what the encoder's normalization gives, and the settings."""
    values = np.random.default_rng(2).integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
    Image.fromarray(values).save(folder / "photo.png")
    Image.fromarray(np.zeros((ROWS, COLUMNS), np.uint8)).save(folder / "mask.png")
    expected = (values.transpose(2, 1, 0) / 255 - 0.5) / 0.5  # EfficientNet-Lite0's weights: mean = std = 0.5
    items = {"image": str(folder / "photo.png"), "label": str(folder / "mask.png")}
    return items, expected, {"slice_size": [COLUMNS, ROWS]}


def gray_photograph(folder: Path) -> tuple[dict[str, str], np.ndarray, dict[str, object]]:
    """Write a gray photograph of the target size; return it, what its percentiles give, and the settings."""
    values = np.random.default_rng(3).integers(0, 256, (ROWS, COLUMNS)).astype(np.uint8)
    Image.fromarray(values).save(folder / "photo.png")
    Image.fromarray(np.zeros((ROWS, COLUMNS), np.uint8)).save(folder / "mask.png")
    items = {"image": str(folder / "photo.png"), "label": str(folder / "mask.png")}
    return items, between_percentiles(values).T[None], {"slice_size": [COLUMNS, ROWS]}


def magnified_photograph(folder: Path) -> tuple[dict[str, str], np.ndarray, dict[str, object]]:
    """As `photograph`, with the name that a task gives to the size before it cuts patches."""
    items, expected, settings = photograph(folder)
    return items, expected, {"photograph_size": settings["slice_size"]}


def mr_case(folder: Path) -> tuple[dict[str, str], np.ndarray, dict[str, object]]:
    """Write an MR volume at the target spacing, in RAS; return it, what its percentiles give, and the settings."""
    values = np.random.default_rng(4).gamma(2, 1e5, (COLUMNS, ROWS, 3)).astype(np.float32)
    affine = np.diag([0.5, 0.5, 1.0, 1.0])
    nib.save(nib.Nifti1Image(values, affine), folder / "mr.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(values.shape, np.uint8), affine), folder / "label.nii.gz")
    displayed = between_percentiles(values)[::-1, ::-1]  # as a radiologist sees it: the patient's right on the left
    before, after = (displayed[..., order] for order in ([0, 0, 1], [1, 2, 2]))
    items = {"image": str(folder / "mr.nii.gz"), "label": str(folder / "label.nii.gz")}
    return items, np.stack([before, displayed, after]), {"spacing": 0.5, "context_slices": 1}


def single_slices(folder: Path) -> tuple[dict[str, str], np.ndarray, dict[str, object]]:
    """As `mr_case`, without neighbors."""
    items, expected, settings = mr_case(folder)
    return items, expected[1:2], {**settings, "context_slices": 0}


def mr_volume(folder: Path) -> tuple[dict[str, str], np.ndarray, dict[str, object]]:
    """As `mr_case`, for a network that sees all of the volume."""
    items, expected, _ = mr_case(folder)
    return items, expected[1:2], {"spacing": [0.5, 0.5, 1.0]}


def between_percentiles(values: np.ndarray) -> np.ndarray:
    """Return values with their 1st percentile at -1 and their 99th at 1, as MONAI has it."""
    scale = ScaleIntensityRangePercentiles(1, 99, -1, 1, clip=True)
    return np.asarray(scale(values.astype(np.float32)))


def lung_case(folder: Path) -> tuple[dict[str, str], np.ndarray, dict[str, object]]:
    return ct_case(folder, windows=((-600, 1500), (50, 350), (-200, 2000)))


def spleen_case(folder: Path) -> tuple[dict[str, str], np.ndarray, dict[str, object]]:
    return ct_case(folder, windows=((120, 240), (40, 400), (0, 1000)))


CASES = {
    "train": ct_case,
    "train dermoscopy": photograph,
    "train dermoscopy_click": photograph,
    "train dermoscopy_fast": photograph,
    "train lungs": gray_photograph,
    "train hippocampus": mr_volume,
    "train heart": single_slices,
    "train heart_click": single_slices,
    "train vessels": magnified_photograph,
    "train lung_ct": lung_case,
    "train spleen": spleen_case,
    "train nerves": photograph,
    "train voc": photograph,
}


@pytest.mark.parametrize(("programs", "case"), [(task, CASES[task[0]]) for task in TASKS], ids=list(CASES))
def test_one_array_through_every_chain(programs, case, tmp_path):
    item, expected, settings = case(tmp_path)
    arrays = {}
    for program, key in ((0, "train#preprocessing"), (0, "validate#preprocessing"), (1, "preprocessing")):
        parser: ConfigParser = merged(PROGRAMS[programs[program]])
        parser.update(settings)
        arrays[key] = np.asarray(parser.get_parsed_content(key)(dict(item))["image"])
    reference = arrays["preprocessing"]
    np.testing.assert_allclose(reference, expected, atol=2e-6)
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, reference, err_msg=key)
