# SPDX-License-Identifier: Apache-2.0
"""Labels of a volume land on the voxels of their image, however they are stored; what does not fit is refused."""

from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.transforms.label import LabelReader
from bundle.pyraseg.transforms.reader import MedicalImageReader
from tests.helpers.labeled_images import CLASSES, F, letter_f, load, make_series, nifti


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
        (F + np.uint8(2), {}, r"holds the values 5 \(\d+ voxels\), but the values 0 to 3 are declared"),
        (
            F.astype(np.int16) - 1,
            {},
            r"holds the values -1 \(\d+ voxels\),.* \"label_names\": \{\"spleen\": \[-1\], \"Liver\": \[2\]\}",
        ),
        (F * np.float32(0.5), {}, r"holds the values 0.5 \(\d+ voxels\), 1.5 \(\d+ voxels\), but"),
        (F, {"class_names": ["background", "liver"]}, r"holds the values 3 \(\d+ voxels\), but the values 0 to 1 are"),
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


JUST_BELOW = np.nextafter(np.float32(1), np.float32(0))


@pytest.mark.parametrize(
    ("stored", "slope", "told"),
    [
        ((F * np.float32(JUST_BELOW)), None, False),
        ((F * np.float64(0.9998)), None, True),
        ((F.astype(np.int16) * 9000), 1 / 9000, False),  # float32's 1/9000
        (np.rint(F / (3 / 255)).astype(np.uint8), 3 / 255, False),  # as a program scales what has 3 at most: 85 steps
        (np.rint(F / (3.5 / 255)).astype(np.uint8), 3.5 / 255, True),  # no whole number is a multiple of the step
    ],
)
def test_numbers_that_are_meant_to_be_whole_are(
    oblique_series: tuple,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    stored: np.ndarray,
    slope: float | None,
    told: bool,
) -> None:
    image = nib.Nifti1Image(stored, oblique_series[1])
    if slope:
        image.header.set_slope_inter(slope, 0)
    nib.save(image, tmp_path / "label.nii")
    assert np.array_equal(load(oblique_series[0], tmp_path / "label.nii")[1][0], F)
    assert ("were rounded" in caplog.text) == told


@pytest.mark.parametrize("value", [0.998, 1.002, 0.5, -0.2])
def test_other_numbers_are_not_rounded(oblique_series: tuple, tmp_path: Path, value: float) -> None:
    path = nifti(np.where(F == 1, value, F), oblique_series[1], tmp_path / "label.nii")
    with pytest.raises(PyrasegError, match=rf"holds the values {value} \(\d+ voxels\), but the values 0 to 3"):
        load(oblique_series[0], path)


def test_a_label_is_laid_where_either_form_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A program that heeds the qform draws where that says, one that heeds the sform there."""
    qform, sform = np.diag([-1.0, 1, 3, 1]), shifted(np.diag([1.0, 1, 3, 1]), 9, 0, 2)
    image = nib.Nifti1Image(F.astype(np.int16), sform)
    image.header.set_qform(qform, 1)
    image.header.set_sform(sform, 2)
    nib.save(nib.Nifti1Image(F.astype(np.int16), None, image.header), tmp_path / "image.nii")
    for place in (sform, qform):
        caplog.clear()
        _, label = load(tmp_path / "image.nii", nifti(F, place, tmp_path / "label.nii"))
        assert np.array_equal(label[0], F)
        assert ("by the other of qform and sform" in caplog.text) == (place is qform)
    with pytest.raises(PyrasegError, match="beside its image"):
        load(tmp_path / "image.nii", nifti(F, shifted(qform, 3, 0, 0), tmp_path / "label.nii"))


@pytest.mark.parametrize("sizes", [(1.0, 1, 3), (1, 1, 2)])
def test_without_orientation_equal_grids_are_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sizes: tuple
) -> None:
    nifti(F.astype(np.int16), shifted(np.diag([-1.0, 1, 3, 1]), 9, 8, 7), tmp_path / "image.nii")
    header = nib.Nifti1Image(F, np.diag([*sizes, 1.0])).header
    header["sform_code"] = 0
    nib.save(nib.Nifti1Image(F, None, header), tmp_path / "label.nii")
    if sizes[2] == 2:
        with pytest.raises(PyrasegError, match="voxels beside its image"):
            load(tmp_path / "image.nii", tmp_path / "label.nii")
        return
    assert np.array_equal(load(tmp_path / "image.nii", tmp_path / "label.nii")[1][0], F)
    assert "voxel by voxel" in caplog.text


@pytest.mark.parametrize("extra", [(1,), (1, 1)])
def test_axes_of_length_1_are_none(oblique_series: tuple, tmp_path: Path, extra: tuple) -> None:
    path = nifti(F.reshape(*F.shape, *extra), oblique_series[1], tmp_path / "label.nii.gz")
    assert np.array_equal(load(oblique_series[0], path)[1][0], F)


@pytest.mark.parametrize(("unit", "length"), [("meter", 1000), ("micron", 0.001)])
def test_units_of_a_label_are_turned_into_mm(oblique_series: tuple, tmp_path: Path, unit: str, length: float) -> None:
    image = nib.Nifti1Image(F, np.diag([1 / length, 1 / length, 1 / length, 1]) @ oblique_series[1])
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "label.nii")
    assert np.array_equal(load(oblique_series[0], tmp_path / "label.nii")[1][0], F)


@pytest.mark.parametrize("dropped", [False, True])
def test_a_plane_is_matched_by_its_place_and_not_by_its_size(tmp_path: Path, dropped: bool) -> None:
    """A radiograph as NIfTI, whose slice axis is dropped or not, and a label that is stored the other way round."""
    place, plane = np.diag([-1.0, 1, 3, 1]), F[..., 1]
    image = MetaTensor(*read_volume(nifti(plane.astype(np.int16), place, tmp_path / "image.nii")))
    image = image[..., 0] if dropped else image
    turned = shifted(place @ np.diag([-1, 1, 1, 1]), 1 - len(plane), 0, 0)
    label = LabelReader(class_names=CLASSES).read(nifti(plane[::-1], turned, tmp_path / "label.nii"), image)
    assert np.array_equal(label.reshape(plane.shape), plane)
    assert label.shape == image.shape[1:]


def read_volume(path: Path) -> tuple[torch.Tensor, None, dict]:
    array, meta = MedicalImageReader().get_data([path])
    return torch.from_numpy(array)[None], None, meta


def test_a_missing_label_is_refused(oblique_series: tuple) -> None:
    with pytest.raises(PyrasegError, match=r"There is no label at .*gone\.nii"):
        load(oblique_series[0], oblique_series[0] / "gone.nii")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0), (2, 2, 2)], ids=["a corner", "inside"])
@pytest.mark.parametrize(
    "options",
    [{}, {"threshold": 1}, {"unknown_value": 255}, {"label_names": {"spleen": [1], "background": ["*"]}}],
    ids=["values", "threshold", "unknown", "any other value"],
)
def test_values_that_are_not_finite_are_no_class(
    oblique_series: tuple, tmp_path: Path, value: float, place: tuple, options: dict
) -> None:
    stored = (F > 0).astype(np.float32).transpose(2, 1, 0)
    stored[place] = value
    nib.save(nib.Nifti1Image(stored, oblique_series[1]), tmp_path / "label.nii")
    reader = LabelReader(class_names=["background", "spleen"], **options)
    with pytest.raises(PyrasegError, match=r"label\.nii holds NaN or infinity, which is no class: 1 of \d+ values"):
        reader.read(tmp_path / "label.nii", read_series(oblique_series[0]))
