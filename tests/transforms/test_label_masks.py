# SPDX-License-Identifier: Apache-2.0
"""Masks of one class each are put together to one label."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from tests.helpers.labeled_images import PICTURE, F, load, write_picture


def write_masks(folder: Path, **masks: np.ndarray) -> dict[str, str]:
    folder.mkdir()
    return {name: str(write_picture(folder / f"{name}.png", mask)) for name, mask in masks.items()}


def test_masks_of_the_classes_are_put_together(tmp_path: Path) -> None:
    photograph = write_picture(tmp_path / "image.png", np.zeros((*PICTURE.shape, 3), np.uint8))
    spleen, lesion = ((PICTURE == 1) * np.uint8(255), (PICTURE == 3) * np.uint8(1))
    files = write_masks(tmp_path / "masks", SPLEEN=spleen, lesion=lesion)
    (tmp_path / "masks" / ".hidden").write_text("left by the system")
    for label in (tmp_path / "masks", files):
        assert np.array_equal(load(photograph, label)[1][0], PICTURE.T)
    names = {"Liver": ["SPLEEN"], "background": ["les*"]}
    merged = load(photograph, tmp_path / "masks", class_names=["background", "Liver"], label_names=names)
    assert np.array_equal(merged[1][0], PICTURE.T == 1)
    with pytest.raises(PyrasegError, match=r"The data list has masks named \['SPLEEN'\]"):
        load(photograph, files, class_names=["background", "lesion"])
    with pytest.raises(PyrasegError, match=r"lesion\.png holds the values 1 beside 0 and 255"):
        load(photograph, files, mask_value=255)


def test_masks_may_overlap_only_in_a_declared_order(tmp_path: Path) -> None:
    photograph = write_picture(tmp_path / "image.png", np.zeros((*PICTURE.shape, 3), np.uint8))
    liver = (PICTURE > 0).astype(np.uint8)
    files = write_masks(tmp_path / "masks", liver=liver, lesion=(PICTURE == 3).astype(np.uint8))
    with pytest.raises(PyrasegError, match=r"The folder .*masks: 'Liver' and 'lesion' in \d+ pixels overlap"):
        load(photograph, tmp_path / "masks")
    _, label = load(photograph, files, overlap_order=["Liver", "lesion"])
    assert np.array_equal(label[0], np.where(PICTURE == 3, 3, 2 * liver).T)


def test_masks_of_a_volume_are_matched_by_place(oblique_series: tuple, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for name, value, flip in (("spleen", 1, 1), ("lesion", 3, -1)):
        image = nib.Nifti1Image((value == F).astype(np.uint8), oblique_series[1])
        nib.save(image.as_reoriented([[0, flip], [1, 1], [2, 1]]), tmp_path / "masks" / f"{name}.nii.gz")
    assert np.array_equal(load(oblique_series[0], tmp_path / "masks")[1][0], F)


def test_a_folder_that_is_no_label_is_refused(tmp_path: Path) -> None:
    photograph = write_picture(tmp_path / "image.png", np.zeros((*PICTURE.shape, 3), np.uint8))
    (tmp_path / "empty").mkdir()
    with pytest.raises(PyrasegError, match=r"but .*empty holds nothing"):
        load(photograph, tmp_path / "empty")
    files = write_masks(tmp_path / "masks", lesion=PICTURE)
    (tmp_path / "masks" / "notes.txt").write_text("x")
    with pytest.raises(PyrasegError, match=r"holds lesion\.png, notes\.txt"):
        load(photograph, tmp_path / "masks")
    with pytest.raises(PyrasegError, match=r"lesion\.png holds the values 3 beside 0 and 1"):
        load(photograph, files)
    with pytest.raises(PyrasegError, match=r"There is no label at .*gone\.png"):
        load(photograph, {"lesion": tmp_path / "gone.png"})
