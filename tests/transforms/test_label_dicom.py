# SPDX-License-Identifier: Apache-2.0
"""DICOM segmentations and structure sets land on the voxels of their series, and on no other."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from monai.transforms import Compose, LoadImaged
from pydicom.pixels.utils import pack_bits
from pydicom.uid import ComputedRadiographyImageStorage

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.labels.seg_writer import write_segmentation
from bundle.pyraseg.transforms.label import LabelReader, LoadLabeld
from bundle.pyraseg.transforms.slices import DropSliceAxisd
from tests.helpers.dicom_files import PATIENT, write_image
from tests.helpers.labeled_images import (
    CLASSES,
    PICTURE,
    SEGMENTS,
    SHAPE,
    SPACING,
    STACKS,
    TURN,
    F,
    letter_f,
    load,
    make_series,
    nifti,
)
from tests.helpers.structure_sets import write_structure_set


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


def test_a_segmentation_needs_its_series(oblique_series: tuple, tmp_path: Path) -> None:
    make_segmentation(make_series(tmp_path / "series"), tmp_path / "seg.dcm")
    image = nifti(F.astype(np.int16), oblique_series[1], tmp_path / "image.nii")
    with pytest.raises(PyrasegError, match=r"seg\.dcm needs a DICOM series as its image"):
        load(image, tmp_path / "seg.dcm")
    make_series(tmp_path / "other", "axial")
    with pytest.raises(PyrasegError, match=r"seg\.dcm was drawn on other images of the series \S+ than these"):
        load(tmp_path / "other", tmp_path / "seg.dcm")
    with pytest.raises(PyrasegError, match=r"seg\.dcm lies"):
        load(tmp_path / "other", tmp_path / "seg.dcm", drawn_on="frame_of_reference")


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
