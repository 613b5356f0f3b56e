# SPDX-License-Identifier: Apache-2.0
"""Labels land on the voxels of their image, however they are stored; what does not fit is refused."""

from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged
from PIL import Image
from pydicom.pixels.utils import pack_bits
from pydicom.uid import ComputedRadiographyImageStorage

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from bundle.pyraseg.transforms.label import UNKNOWN, LabelReader, LoadLabeld
from bundle.pyraseg.transforms.projection import DropSliceAxisd
from tests.helpers.dicom_files import AXIAL, CORONAL, write_image, write_series
from tests.helpers.structure_sets import write_structure_set

CLASSES = ["background", "spleen", "Liver", "lesion"]  # not in the order of the segments below
SEGMENTS = [SegmentClass.organ("liver"), SegmentClass.lesion("liver"), SegmentClass.organ("spleen")]
TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0], [0.48, 0.64, 0.6]])
OBLIQUE = (*TURN[:, 0], *TURN[:, 1])
SPACING = (1.5, 0.75)  # rows, columns
SHAPE = (4, 7, 5)  # slices, rows, columns
NAMES = ["c.dcm", "a.dcm", "d.dcm", "b.dcm"]
PATIENT = dict.fromkeys(["PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "ReferringPhysicianName"], "")
PATIENT |= {"StudyDate": "20240101", "StudyTime": "120000", "SeriesNumber": 1}
STACKS = {
    "axial": (AXIAL, [0, 0, 3]),
    "coronal": (CORONAL, [0, 3, 0]),
    "oblique": (OBLIQUE, 3 * TURN[:, 2]),
    "tilted": (AXIAL, [0, 0.9, 3]),
}
HEIGHTS = np.array([0, 3, 4.5, 10])  # of an unevenly spaced stack


def make_series(folder: Path, stack: str = "oblique") -> list[Path]:
    """Write a series under shuffled names and return its files in slice order."""
    uneven = stack == "uneven"
    orientation, step = STACKS["axial" if uneven else stack]
    return write_series(
        folder,
        np.zeros(SHAPE, np.int16),
        orientation=orientation,
        slice_step=step,
        origin=(-20.0, 30.0, 100.0),
        spacing=SPACING,
        names=NAMES,
        per_slice=lambda k: {"ImagePositionPatient": [-20.0, 30.0, 100 + HEIGHTS[k]]} if uneven else {},
        SliceThickness=3,
        **PATIENT,
    )


def load(image: object, label: object, **options: object) -> tuple[MetaTensor, MetaTensor]:
    reader = "bundle.pyraseg.transforms.MedicalImageReader"
    chain = Compose([LoadImaged("image", reader=reader, ensure_channel_first=True)])
    data = chain({"image": str(image), "label": label if isinstance(label, dict) else str(label)})
    data = LoadLabeld("label", **{"class_names": CLASSES, **options})(data)
    return data["image"], data["label"]


def letter_f() -> np.ndarray:
    """Return a mask (slices, rows, columns) that no flip or transposition maps onto itself; slice 0 is empty."""
    mask = np.zeros(SHAPE, np.uint8)
    for k in range(1, SHAPE[0]):
        mask[k, 1:6, 1] = 1
        mask[k, 1, 1 : 5 - k % 2] = 1
        mask[k, 3, 2 : 2 + k % 3] = 3
    return mask


def nifti(mask: np.ndarray, affine: np.ndarray, path: Path) -> Path:
    nib.save(nib.Nifti1Image(mask, affine), path)
    return path


# --- volumes ---


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Return the folder of an oblique series and its affine to RAS mm, worked out from PS3.3 C.7.6.2.1.1."""
    folder = tmp_path_factory.mktemp("series")
    make_series(folder)
    affine = nib.affines.from_matvec(TURN @ np.diag([SPACING[1], SPACING[0], 3]), [-20, 30, 100])
    return folder, np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("order", permutations(range(3)), ids=str)
@pytest.mark.parametrize("flips", product((1, -1), repeat=3), ids=str)
def test_axes_may_be_stored_in_any_order_and_direction(
    series: tuple, tmp_path: Path, order: tuple, flips: tuple
) -> None:
    folder, affine = series
    stored = nib.Nifti1Image(letter_f().transpose(2, 1, 0), affine).as_reoriented(np.stack([order, flips], axis=1))
    nib.save(stored, tmp_path / "label.nii.gz")
    image, label = load(folder, tmp_path / "label.nii.gz")
    assert np.array_equal(label[0], letter_f().transpose(2, 1, 0))
    assert np.array_equal(label.affine, image.affine)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd", ".nii.gz"])
@pytest.mark.parametrize("flips", [(1, 1, 1), (1, -1, 1), (-1, -1, 1), (1, 1, -1), (-1, -1, -1)], ids=str)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=str)
def test_itk_writes_either_handedness(
    series: tuple, tmp_path: Path, order: Sequence[int], flips: Sequence[int], suffix: str
) -> None:
    folder, affine = series
    stored = nib.Nifti1Image(letter_f().transpose(2, 1, 0), affine).as_reoriented(np.stack([order, flips], axis=1))
    to_lps = np.diag([-1, -1, 1, 1]) @ stored.affine
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    image = itk.image_from_array(np.ascontiguousarray(np.asarray(stored.dataobj).transpose(2, 1, 0)))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(to_lps[:3, :3] / spacing)))
    itk.imwrite(image, str(tmp_path / f"label{suffix}"))
    assert np.array_equal(load(folder, tmp_path / f"label{suffix}")[1][0], letter_f().transpose(2, 1, 0))


def test_values_may_mean_classes_in_the_table(series: tuple, tmp_path: Path) -> None:
    stored = np.array([0, 5, 9, 1], np.uint8)[F]
    path = nifti(stored, series[1], tmp_path / "label.nii")
    _, label = load(series[0], path, label_names={"spleen": [1], "Liver": [5], "background": ["*"]})
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


F = letter_f().transpose(2, 1, 0)


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
        (np.stack([F, F], axis=3), lambda a: a, "The label is no volume"),
    ],
)
def test_a_label_on_another_grid_is_refused(
    series: tuple, tmp_path: Path, mask: np.ndarray, move: object, message: str
) -> None:
    folder, affine = series
    with pytest.raises(PyrasegError, match=message):
        load(folder, nifti(mask, move(affine), tmp_path / "label.nii"))


def test_rounding_of_an_affine_is_tolerated(series: tuple, tmp_path: Path) -> None:
    folder, affine = series
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
    series: tuple, tmp_path: Path, values: np.ndarray, options: dict, message: str
) -> None:
    folder, affine = series
    with pytest.raises(PyrasegError, match=message) as caught:
        load(folder, nifti(values, affine, tmp_path / "label.nii"), **options)
    assert str(tmp_path / "label.nii") in str(caught.value)


def test_a_missing_label_is_refused(series: tuple) -> None:
    with pytest.raises(PyrasegError, match=r"There is no label at .*gone\.nii"):
        load(series[0], series[0] / "gone.nii")


# --- DICOM SEG ---


def make_segmentation(files: list[Path], path: Path) -> np.ndarray:
    """Write the letter as a SEG with shuffled frames; return the class indices that it stands for, (W, H, D)."""
    write_segmentation(path, letter_f(), [pydicom.dcmread(file) for file in files], SEGMENTS)
    dataset = pydicom.dcmread(path)
    assert int(dataset.NumberOfFrames) < len(SEGMENTS) * SHAPE[0]  # only slices with segments
    order = np.random.default_rng(3).permutation(int(dataset.NumberOfFrames))
    dataset.PixelData = pack_bits(dataset.pixel_array[order].ravel())
    dataset.PerFrameFunctionalGroupsSequence = [dataset.PerFrameFunctionalGroupsSequence[k] for k in order]
    dataset.save_as(path)
    by_name = {segment.label: number for number, segment in enumerate(SEGMENTS, 1)}
    numbers = [0] + [by_name[name.lower()] for name in CLASSES[1:]]
    return np.argsort(numbers)[letter_f()].transpose(2, 1, 0)


@pytest.mark.parametrize("stack", [*STACKS, "uneven"])
def test_segmentations_are_matched_by_place_and_name(tmp_path: Path, stack: str) -> None:
    files = make_series(tmp_path / "series", stack)
    expected = make_segmentation(files, tmp_path / "seg.dcm")
    _, label = load(tmp_path / "series", tmp_path / "seg.dcm")
    assert np.array_equal(label[0], expected)
    assert set(np.unique(expected)) == {0, 1, 2}  # the declared lesion is absent


def test_segments_must_be_declared(tmp_path: Path) -> None:
    make_segmentation(make_series(tmp_path / "series"), tmp_path / "seg.dcm")
    with pytest.raises(PyrasegError, match=r"seg\.dcm has segments named \['lesion', 'spleen'\]"):
        load(tmp_path / "series", tmp_path / "seg.dcm", class_names=["background", "liver"])


def test_a_segmentation_needs_its_series(series: tuple, tmp_path: Path) -> None:
    make_segmentation(make_series(tmp_path / "series"), tmp_path / "seg.dcm")
    image = nifti(F.astype(np.int16), series[1], tmp_path / "image.nii")
    with pytest.raises(PyrasegError, match=r"seg\.dcm needs a DICOM series as its image"):
        load(image, tmp_path / "seg.dcm")
    make_series(tmp_path / "other", "axial")
    with pytest.raises(PyrasegError, match=r"seg\.dcm lies"):
        load(tmp_path / "other", tmp_path / "seg.dcm")


@pytest.mark.parametrize("flat", [False, True], ids=["one slice", "no slices"])
def test_a_radiograph_has_no_place_in_the_patient(tmp_path: Path, flat: bool) -> None:
    about = {"SOPClassUID": ComputedRadiographyImageStorage, "Modality": "CR", "FrameOfReferenceUID": None}
    about |= {"InstanceNumber": 1, "PatientOrientation": ["L", "F"]}
    file = write_image(tmp_path / "image.dcm", np.zeros(PICTURE.shape, np.int16), **about, **PATIENT)
    write_segmentation(tmp_path / "seg.dcm", PICTURE[None], [pydicom.dcmread(file)], SEGMENTS)
    reader = "bundle.pyraseg.transforms.MedicalImageReader"
    steps = [LoadImaged("image", reader=reader, ensure_channel_first=True), *([DropSliceAxisd("image")] * flat)]
    names = ["background", "liver", "lesion", "spleen"]
    data = Compose([*steps, LoadLabeld("label", class_names=names)])
    label = data({"image": str(file), "label": str(tmp_path / "seg.dcm")})["label"]
    assert label.shape == ((1, 5, 7) if flat else (1, 5, 7, 1))
    assert np.array_equal(np.squeeze(label.numpy()), PICTURE.T)


def test_the_reader_takes_a_series_without_a_transform(tmp_path: Path) -> None:
    files = make_series(tmp_path / "series")
    expected = make_segmentation(files, tmp_path / "seg.dcm")
    found = LabelReader(class_names=CLASSES).read(tmp_path / "seg.dcm", read_series(tmp_path / "series"))
    assert np.array_equal(found, expected)
    affine = np.diag([-1, -1, 1, 1]) @ nib.affines.from_matvec(TURN @ np.diag([0.75, 1.5, 3]), [-20, 30, 100])
    path = nifti(F, affine, tmp_path / "label.nii")
    assert np.array_equal(LabelReader(class_names=CLASSES).read(path, read_series(tmp_path / "series")), F)


def test_a_segmentation_of_another_series_is_refused(tmp_path: Path) -> None:
    files = make_series(tmp_path / "series")
    expected = make_segmentation(files, tmp_path / "seg.dcm")
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = "1.2.3"
        dataset.SOPInstanceUID += ".1"
        dataset.save_as(file)
    with pytest.raises(PyrasegError, match=r"drawn on the series .*, not on its image, 1\.2\.3"):
        load(tmp_path / "series", tmp_path / "seg.dcm")
    _, label = load(tmp_path / "series", tmp_path / "seg.dcm", drawn_on="frame_of_reference")
    assert np.array_equal(label[0], expected)


def test_a_structure_set_is_filled(tmp_path: Path) -> None:
    """A square around pixels 1 to 3 of rows and columns, on slice 2."""
    first = pydicom.dcmread(make_series(tmp_path / "series")[0])
    corners = np.array([[0.5, 0.5], [0.5, 3.5], [3.5, 3.5], [3.5, 0.5]]) * SPACING
    points = np.array([-20, 30, 100]) + 2 * 3 * TURN[:, 2] + corners @ np.stack([TURN[:, 1], TURN[:, 0]])
    uids = {"series_uid": first.SeriesInstanceUID, "frame_of_reference_uid": first.FrameOfReferenceUID}
    write_structure_set(tmp_path / "rt" / "1.dcm", {"GTV": [points], "BODY": [points * 1.0]}, **uids)
    names = {"lesion": ["gtv"], "background": ["body"]}
    expected = np.zeros_like(F)
    expected[1:4, 1:4, 2] = 3
    for path in (tmp_path / "rt" / "1.dcm", tmp_path / "rt"):  # a folder with nothing else, as archives have them
        assert np.array_equal(load(tmp_path / "series", path, label_names=names)[1][0], expected)
    with pytest.raises(PyrasegError, match=r"has ROIs named \['BODY', 'GTV'\]"):
        load(tmp_path / "series", tmp_path / "rt")


# --- a mask for each class ---


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
    with pytest.raises(PyrasegError, match=r"lesion\.png holds the values 1 besides 0, where 255 stands"):
        load(photograph, files, mask_value=255)


def test_masks_may_overlap_only_in_a_declared_order(tmp_path: Path) -> None:
    photograph = write_picture(tmp_path / "image.png", np.zeros((*PICTURE.shape, 3), np.uint8))
    liver = (PICTURE > 0).astype(np.uint8)
    files = write_masks(tmp_path / "masks", liver=liver, lesion=(PICTURE == 3).astype(np.uint8))
    with pytest.raises(PyrasegError, match=r"The folder .*masks: 'Liver' and 'lesion' in \d+ pixels overlap"):
        load(photograph, tmp_path / "masks")
    _, label = load(photograph, files, overlap_order=["Liver", "lesion"])
    assert np.array_equal(label[0], np.where(PICTURE == 3, 3, 2 * liver).T)


def test_masks_of_a_volume_are_matched_by_place(series: tuple, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for name, value, flip in (("spleen", 1, 1), ("lesion", 3, -1)):
        image = nib.Nifti1Image((value == F).astype(np.uint8), series[1])
        nib.save(image.as_reoriented([[0, flip], [1, 1], [2, 1]]), tmp_path / "masks" / f"{name}.nii.gz")
    assert np.array_equal(load(series[0], tmp_path / "masks")[1][0], F)


def test_a_folder_that_is_no_label_is_refused(tmp_path: Path) -> None:
    photograph = write_picture(tmp_path / "image.png", np.zeros((*PICTURE.shape, 3), np.uint8))
    (tmp_path / "empty").mkdir()
    with pytest.raises(PyrasegError, match=r"but .*empty holds nothing"):
        load(photograph, tmp_path / "empty")
    files = write_masks(tmp_path / "masks", lesion=PICTURE)
    (tmp_path / "masks" / "notes.txt").write_text("x")
    with pytest.raises(PyrasegError, match=r"holds lesion\.png, notes\.txt"):
        load(photograph, tmp_path / "masks")
    with pytest.raises(PyrasegError, match=r"lesion\.png holds the values 1, 3 besides 0, where one value stands"):
        load(photograph, files)
    with pytest.raises(PyrasegError, match=r"There is no label at .*gone\.png"):
        load(photograph, {"lesion": tmp_path / "gone.png"})


# --- photographs ---

PICTURE = letter_f()[1]  # rows, columns


def write_picture(path: Path, values: np.ndarray, *, palette: bool = False) -> Path:
    image = Image.fromarray(values)
    if palette:
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(path)
    return path


@pytest.mark.parametrize("palette", [False, True], ids=["gray", "palette"])
@pytest.mark.parametrize("suffix", ["png", "dcm"])
def test_a_label_of_a_photograph_is_matched_by_size(tmp_path: Path, suffix: str, palette: bool) -> None:
    photograph = tmp_path / f"image.{suffix}"
    if suffix == "dcm":  # a projection, without a place in the patient
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
