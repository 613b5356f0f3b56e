# SPDX-License-Identifier: Apache-2.0
"""Class counts against counts of the label files themselves, and weights against the formulas worked by hand."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged
from PIL import Image

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.data.class_statistics import ClassCounts, class_weights, count_label, sum_counts
from bundle.pyraseg.transforms.label import LoadLabeld

NAMES = ["background", "liver", "lesion"]
READER = "bundle.pyraseg.transforms.MedicalImageReader"


def load(class_names=NAMES, **options) -> Compose:
    return Compose(
        [
            LoadImaged("image", reader=READER, ensure_channel_first=True),
            LoadLabeld("label", class_names=class_names, **options),
        ]
    )


def count_pixels(cases, load, *, class_names=NAMES, **options) -> ClassCounts:
    labels = [np.asarray(load(case)["label"])[0] for case in cases]
    counts = [count_label(label, len(class_names), path="some.nii", **options) for label in labels]
    return sum_counts(np.concatenate(counts), class_names)


def write_volume(folder: Path, case: str, label: np.ndarray) -> dict[str, str]:
    item = {key: str(folder / f"{case}_{key}.nii.gz") for key in ("image", "label")}
    nib.save(nib.Nifti1Image(np.zeros(label.shape, np.float32), np.eye(4)), item["image"])
    nib.save(nib.Nifti1Image(label, np.eye(4)), item["label"])
    return item


@pytest.fixture
def volumes(tmp_path: Path) -> list[dict[str, str]]:
    """Return two volumes of 3 slices of 4 x 5: a lesion in one slice, liver in two, a volume of background."""
    label = np.zeros((4, 5, 3), np.uint8)
    label[:2, :, 0] = 1
    label[:, :, 1] = 1
    label[0, :3, 1] = 2
    return [write_volume(tmp_path, "a", label), write_volume(tmp_path, "b", np.zeros((4, 5, 3), np.uint8))]


# --- counts ---


def test_counts_slices_of_volumes(volumes):
    counts = count_pixels(volumes, load(), class_names=NAMES)
    assert counts.pixels.tolist() == [20 * 6 - 30, 27, 3]
    assert counts.images.tolist() == [5, 2, 1]  # one slice is covered by liver and lesion
    assert counts.pixels_of_images.tolist() == [100, 40, 20]
    assert counts.absent == []


def test_counts_photographs_with_masks(tmp_path):
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 2:7] = 255
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "image.jpg")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    case = {"image": str(tmp_path / "image.jpg"), "label": str(tmp_path / "mask.png")}
    names = ["background", "lesion"]
    counts = count_pixels([case], load(names, mask_value=255), class_names=names)
    assert counts.pixels.tolist() == [38, 10]


@pytest.mark.slow
def test_counts_of_the_phantom_are_those_of_its_files(phantom_study):
    """The NIfTI labels of the study, counted from the files without any transform of ours."""
    listed = json.loads((phantom_study / "datalist.json").read_text())
    items = [item for item in listed["training"] if item["label"].endswith(".nii.gz")][:3]
    expected = np.zeros(5, int)
    for item in items:
        expected += np.bincount(
            np.asarray(nib.load(phantom_study / item["label"]).dataobj).astype(int).ravel(), minlength=5
        )
    names = ["background", "liver", "lesion", "spleen", "kidney"]
    cases = [{key: str(phantom_study / item[key]) for key in ("image", "label")} for item in items]
    assert items
    np.testing.assert_array_equal(count_pixels(cases, load(names), class_names=names).pixels, expected)


def test_ignored_pixels_are_counted_nowhere():
    label = torch.tensor([[0, 0, 1, 255], [255, 255, 1, 255]])[None]
    case = {"image": "a", "label": "b"}
    counts = count_pixels([case], lambda _: {"label": label}, class_names=NAMES, ignore_index=255)
    assert counts.pixels.tolist() == [2, 2, 0]
    assert counts.pixels_of_images.tolist() == [4, 4, 0]
    assert counts.absent == ["lesion"]


@pytest.mark.parametrize("value", [3, -1, 0.5])
def test_refuses_values_that_are_no_class(value):
    label = torch.full((1, 2, 2), value)
    with pytest.raises(PyrasegError, match=r"some\.nii.*from 0 to 2"):
        count_pixels([{"image": "a", "label": "some.nii"}], lambda _: {"label": label}, class_names=NAMES)


def test_refuses_what_has_nothing_to_count():
    label = torch.full((1, 2, 2), 255)
    with pytest.raises(PyrasegError, match="no pixel of any class"):
        count_pixels([{"label": "b"}], lambda _: {"label": label}, class_names=NAMES, ignore_index=255)


# --- weights ---


def counts(pixels: list[int], of_images: list[int]) -> ClassCounts:
    every = np.full(len(NAMES), sum(pixels))
    return ClassCounts(tuple(NAMES), np.array(pixels), np.array(pixels), np.array(of_images), every, every)


def test_inverse_frequency():
    """Shares 0.8, 0.15, 0.05: inverses 1.25, 6.667, 20, whose mean is 9.306."""
    weights = class_weights(counts([800, 150, 50], [1000, 500, 200]), method="inverse_frequency")
    assert weights == pytest.approx([1.25 / 9.30556, 6.66667 / 9.30556, 20 / 9.30556], rel=1e-5)


def test_median_frequency():
    """Frequencies 0.8, 0.3, 0.25, median 0.3: weights 0.375, 1, 1.2 before their mean is 1."""
    weights = class_weights(counts([800, 150, 50], [1000, 500, 200]), method="median_frequency")
    assert np.divide(weights, weights[1]) == pytest.approx([0.375, 1, 1.2])
    assert np.mean(weights) == pytest.approx(1)


def test_weighted_pixels_of_all_classes_are_worth_the_same():
    pixels = np.array([800, 150, 50])
    assert np.ptp(pixels * class_weights(counts([800, 150, 50], [1000] * 3))) < 1e-9


@pytest.mark.parametrize("method", ["inverse_frequency", "median_frequency"])
def test_an_absent_class_weighs_as_much_as_the_rarest_present(method):
    weights = class_weights(counts([900, 100, 0], [1000, 1000, 0]), method=method)
    assert weights == pytest.approx([3 / 19, 27 / 19, 27 / 19])  # 1 : 9 : 9


def test_ratio_is_bounded_on_request():
    weights = class_weights(counts([900, 99, 1], [1000] * 3), max_ratio=20)
    assert np.divide(weights, weights[0]) == pytest.approx([1, 900 / 99, 20])
    assert np.mean(weights) == pytest.approx(1)


@pytest.mark.parametrize("options", [{"method": "inverse"}, {"max_ratio": 0.5}, {"max_ratio": float("nan")}])
def test_refuses_options_without_meaning(options):
    with pytest.raises(PyrasegError):
        class_weights(counts([1, 1, 1], [3, 3, 3]), **options)


# --- images that were annotated for some of the classes ---


def test_an_image_counts_for_what_it_was_annotated_for():
    """Two images of 100 pixels: 20 of class 1 in the one, 10 of class 2 in the other, and each for these alone."""
    pixels = np.array([[80, 20, 0], [90, 0, 10]])
    annotated = np.array([[True, True, False], [True, False, True]])
    found = sum_counts(pixels, NAMES, annotated)
    assert found.shares == pytest.approx([170 / 200, 0.2, 0.1])
    assert found.annotated_images.tolist() == [2, 1, 1]
    weights = class_weights(found)
    assert np.divide(weights, weights[0]) == pytest.approx([1, 0.85 / 0.2, 0.85 / 0.1])
    both = sum_counts(np.array([[70, 20, 10]]), NAMES)
    assert np.divide(class_weights(both)[1:], class_weights(both)[1]) == pytest.approx([1, 2])
    assert np.divide(weights[1:], weights[1]) == pytest.approx([1, 2])  # as of images annotated for everything


def test_all_annotations_are_the_same_as_none_told():
    pixels = np.array([[80, 20, 0], [90, 0, 10]])
    told, untold = sum_counts(pixels, NAMES, np.ones((2, 3), bool)), sum_counts(pixels, NAMES)
    assert class_weights(told) == class_weights(untold) and told.shares.tolist() == untold.shares.tolist()
    assert untold.shares == pytest.approx(pixels.sum(axis=0) / 200)
