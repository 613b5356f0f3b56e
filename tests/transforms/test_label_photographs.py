# SPDX-License-Identifier: Apache-2.0
"""Labels of photographs and radiographs are matched by size, and their values told apart."""

from pathlib import Path

import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms.label import UNKNOWN
from tests.helpers.dicom_files import write_image
from tests.helpers.labeled_images import CLASSES, PICTURE, load, write_picture


@pytest.mark.parametrize("palette", [False, True], ids=["gray", "palette"])
@pytest.mark.parametrize("suffix", ["png", "dcm"])
def test_a_label_of_a_photograph_is_matched_by_size(tmp_path: Path, suffix: str, palette: bool) -> None:
    photograph = tmp_path / f"image.{suffix}"
    if suffix == "dcm":  # a projection, without a patient position
        write_image(photograph, np.zeros(PICTURE.shape, np.int16), Modality="CR")
    else:
        write_picture(photograph, np.zeros((*PICTURE.shape, 3), np.uint8))
    image, label = load(photograph, write_picture(tmp_path / "label.png", PICTURE, palette=palette))
    assert label.shape == (1, *image.shape[1:])
    assert np.array_equal(np.squeeze(label.numpy()), PICTURE.T)


def test_a_label_of_another_size_or_with_colors_is_refused(tmp_path: Path) -> None:
    photograph = write_picture(tmp_path / "image.png", np.zeros((*PICTURE.shape, 3), np.uint8))
    with pytest.raises(PyrasegError, match=r"another size than its image: .*label\.png has 4 x 7 voxels, .*has 5 x 7"):
        load(photograph, write_picture(tmp_path / "label.png", PICTURE[:, 1:]))
    with pytest.raises(PyrasegError, match="another size than its image"):
        load(photograph, write_picture(tmp_path / "label.png", PICTURE.T))
    with pytest.raises(PyrasegError, match="has 5 x 7 x 3 voxels"):
        load(photograph, write_picture(tmp_path / "label.png", np.stack([PICTURE] * 3, axis=2)))


def test_masks_of_255(tmp_path: Path) -> None:
    binary = {"class_names": ["background", "lesion"], "mask_value": 255}
    photograph = write_picture(tmp_path / "image.png", np.zeros((*PICTURE.shape, 3), np.uint8))
    whole = write_picture(tmp_path / "label.png", np.where(PICTURE == 1, 255, 0).astype(np.uint8))
    assert np.array_equal(load(photograph, whole, **binary)[1][0], PICTURE.T == 1)
    blurred = write_picture(tmp_path / "blurred.png", np.array([0, 128, 100, 200], np.uint8)[PICTURE])
    with pytest.raises(PyrasegError, match="holds the values 128, 200 beside 0 and 255"):
        load(photograph, blurred, **binary)
    assert np.array_equal(load(photograph, blurred, **binary, threshold=150)[1][0], PICTURE.T == 3)


@pytest.mark.parametrize("options", [{"class_names": CLASSES}, {"class_names": CLASSES[:2], "threshold": 0.5}])
def test_pixels_that_nobody_labeled_are_told_apart(tmp_path: Path, options: dict) -> None:
    photograph = write_picture(tmp_path / "image.png", np.zeros((*PICTURE.shape, 3), np.uint8))
    stored = np.where(PICTURE == 3, 9, np.minimum(PICTURE, 1)).astype(np.uint8)
    label = write_picture(tmp_path / "label.png", stored)
    found = load(photograph, label, unknown_value=9, **options)[1][0]
    assert np.array_equal(found, np.where(stored == 9, UNKNOWN, stored).T)
