# SPDX-License-Identifier: Apache-2.0
"""Labels of a volume land on the voxels of their image, however they are stored; what does not fit is refused."""

from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.transforms.label import LabelReader
from tests.helpers.labeled_images import F, letter_f, load, make_series, nifti


@pytest.mark.parametrize("order", permutations(range(3)), ids=str)
@pytest.mark.parametrize("flips", product((1, -1), repeat=3), ids=str)
def test_axes_may_be_stored_in_any_order_and_direction(
    oblique_series: tuple, tmp_path: Path, order: tuple, flips: tuple
) -> None:
    folder, affine = oblique_series
    stored = nib.Nifti1Image(letter_f().transpose(2, 1, 0), affine).as_reoriented(np.stack([order, flips], axis=1))
    nib.save(stored, tmp_path / "label.nii.gz")
    image, label = load(folder, tmp_path / "label.nii.gz")
    assert np.array_equal(label[0], letter_f().transpose(2, 1, 0))
    assert np.array_equal(label.affine, image.affine)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd", ".nii.gz"])
@pytest.mark.parametrize("flips", [(1, 1, 1), (1, -1, 1), (-1, -1, 1), (1, 1, -1), (-1, -1, -1)], ids=str)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=str)
def test_itk_writes_either_handedness(
    oblique_series: tuple, tmp_path: Path, order: Sequence[int], flips: Sequence[int], suffix: str
) -> None:
    folder, affine = oblique_series
    stored = nib.Nifti1Image(letter_f().transpose(2, 1, 0), affine).as_reoriented(np.stack([order, flips], axis=1))
    to_lps = np.diag([-1, -1, 1, 1]) @ stored.affine
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    image = itk.image_from_array(np.ascontiguousarray(np.asarray(stored.dataobj).transpose(2, 1, 0)))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(to_lps[:3, :3] / spacing)))
    itk.imwrite(image, str(tmp_path / f"label{suffix}"))
    assert np.array_equal(load(folder, tmp_path / f"label{suffix}")[1][0], letter_f().transpose(2, 1, 0))


def test_values_may_mean_classes_in_the_table(oblique_series: tuple, tmp_path: Path) -> None:
    stored = np.array([0, 5, 9, 1], np.uint8)[F]
    path = nifti(stored, oblique_series[1], tmp_path / "label.nii")
    _, label = load(oblique_series[0], path, label_names={"spleen": [1], "Liver": [5], "background": ["*"]})
    assert np.array_equal(label[0], np.array([0, 2, 0, 1])[F])


def test_organs_of_a_real_scan(real_data: Path) -> None:
    """The label runs against the rows of the image; only the right way round are organs of one density."""
    folder = real_data / "ct_abdomen"
    names = {"spleen": [1], "liver": [5], "background": ["*"]}
    image = read_series(folder / "dicom")
    label = LabelReader(class_names=["background", "spleen", "liver"], label_names=names).read(
        folder / "labels.nii.gz", image
    )
    for index, spread in ((1, 20.6), (2, 21.7)):
        assert image.pixels[(label == index).T].std() == pytest.approx(spread, abs=0.1)


def shifted(affine: np.ndarray, *voxels: float) -> np.ndarray:
    return affine @ nib.affines.from_matvec(np.eye(3), voxels)


def turned(affine: np.ndarray, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return nib.affines.from_matvec([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ affine


@pytest.mark.parametrize(
    ("mask", "move", "message"),
    [
        (F, lambda a: shifted(a, 0.5, 0, 0), "0.5 voxels beside its image"),
        (F, lambda a: shifted(a, 0, 0, -1), "1.0 voxels beside its image"),
        (F, lambda a: a @ np.diag([2, 2, 1, 1]), "6.0 voxels beside its image"),  # 2 * 6 - 6 at the far row
        (F[::2, ::2], lambda a: a @ np.diag([2, 2, 1, 1]), "another size than its image: .* 3 x 4 x 4 voxels"),
        (F[:4], lambda a: a, r"another size than its image: .*label\.nii has 4 x 7 x 4 voxels, .* has 5 x 7 x 4"),
        (F[..., 1:], lambda a: a, "another size than its image"),
        (F, lambda a: turned(a, 10), "voxels beside its image"),
        (F, lambda a: np.diag([1.0, 1, 1, 1]), "lie askew"),
        (np.stack([F, F], axis=3), lambda a: a, "holds 2 volumes"),
    ],
)
def test_a_label_on_another_grid_is_refused(
    oblique_series: tuple, tmp_path: Path, mask: np.ndarray, move: object, message: str
) -> None:
    folder, affine = oblique_series
    with pytest.raises(PyrasegError, match=message):
        load(folder, nifti(mask, move(affine), tmp_path / "label.nii"))


def test_rounding_of_an_affine_is_tolerated(oblique_series: tuple, tmp_path: Path) -> None:
    folder, affine = oblique_series
    _, label = load(folder, nifti(F, shifted(affine, 0.04, -0.04, 0.04), tmp_path / "label.nii"))
    assert np.array_equal(label[0], F)


@pytest.mark.parametrize("thickness", [0.5, 1, 5])
def test_a_lone_slice_has_no_slice_spacing_to_compare(tmp_path: Path, thickness: float) -> None:
    file = make_series(tmp_path / "series", "axial")[1]
    affine = np.diag([-1, -1, 1, 1]) @ nib.affines.from_matvec(np.diag([0.75, 1.5, thickness]), [-20, 30, 103])
    _, label = load(file, nifti(F[..., 1:2], affine, tmp_path / "label.nii"))
    assert np.array_equal(label[0], F[..., 1:2])


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (F + np.uint8(2), {}, r"holds the values 5, but 4 classes are declared"),
        (F.astype(np.int16) - 1, {}, "holds the values -1,"),
        (F * np.float32(0.5), {}, "holds the values 0.5, 1.5,"),
        (F, {"class_names": ["background", "liver"]}, "holds the values 3, but 2 classes"),
        (F, {"class_names": ["background", "liver"], "mask_value": 1}, "holds the values 3 beside 0 and 1"),
    ],
)
def test_undeclared_values_are_refused(
    oblique_series: tuple, tmp_path: Path, values: np.ndarray, options: dict, message: str
) -> None:
    folder, affine = oblique_series
    with pytest.raises(PyrasegError, match=message) as caught:
        load(folder, nifti(values, affine, tmp_path / "label.nii"), **options)
    assert str(tmp_path / "label.nii") in str(caught.value)


def test_a_missing_label_is_refused(oblique_series: tuple) -> None:
    with pytest.raises(PyrasegError, match=r"There is no label at .*gone\.nii"):
        load(oblique_series[0], oblique_series[0] / "gone.nii")
