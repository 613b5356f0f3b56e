# SPDX-License-Identifier: Apache-2.0
"""Secondary captures: outlines lie in the patient where the voxels do, and nothing names the patient."""

from dataclasses import replace
from pathlib import Path

import itk
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage
from scipy.spatial import cKDTree

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import find_series
from bundle.pyraseg.figures import color_of
from bundle.pyraseg.inference import Algorithm, CaptureWriter, SourceImages
from bundle.pyraseg.inference.prediction import Prediction
from bundle.pyraseg.transforms.reader import MedicalImageReader
from tests.helpers.dicom_files import write_series
from tests.helpers.segmented_series import NAMES, Case, complaints, letters

WINDOW = [{"center": 50, "width": 400}]


def capture(algorithm: Algorithm, prediction: Prediction, **options: object) -> Path:
    sources = SourceImages(complete_headers=False)
    writer = CaptureWriter(class_names=NAMES, windows=WINDOW, algorithm=algorithm, sources=sources, **options)
    (path,) = writer(prediction)
    return path


def loaded(folder: Path, labels: np.ndarray) -> Prediction:
    image = LoadImage(reader=MedicalImageReader(), ensure_channel_first=True, image_only=True)(folder)
    return Prediction("case", folder / "case", MetaTensor(torch.from_numpy(labels.T.copy())[None]), image)


def test_outlines_lie_where_the_voxels_do(case: Case, algorithm: Algorithm) -> None:
    path = capture(algorithm, case.prediction)
    assert complaints(path) == []
    dataset = pydicom.dcmread(path)
    drawn = {number: [] for number in range(1, len(NAMES))}
    uids = []
    for group, frame in zip(dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array, strict=True):
        row, column = np.reshape(group.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
        down, right = map(float, group.PixelMeasuresSequence[0].PixelSpacing)
        assert down == pytest.approx(right, rel=2e-3)  # pixels are square, but for what rounding sizes takes
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        key = str(reference.ReferencedSOPInstanceUID), int(reference.get("ReferencedFrameNumber", 1))
        uids.append(key)
        position, to_row, to_column = case.planes[key]
        height = round(len(case.frames[key]) * np.linalg.norm(to_row) / down)
        first = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        corner = first - column * down / 2 - row * right / 2  # of the picture, and of the image
        np.testing.assert_allclose(corner, position - to_row / 2 - to_column / 2, atol=1e-3)
        for number, points in drawn.items():
            rows, columns = np.nonzero((frame[:height] == color_of(np.array(number))).all(axis=-1))
            points.append(first + rows[:, None] * column * down + columns[:, None] * row * right)
            labels = case.frames[key] == number
            assert (len(rows) > 0) == labels.any()
            if len(rows):  # every pixel of an outline is beside a voxel of the class
                r, c = np.nonzero(labels)
                centers = position + r[:, None] * to_row + c[:, None] * to_column
                reach = np.hypot(np.linalg.norm(to_row), np.linalg.norm(to_column)) / 2 + 1.5 * down
                assert cKDTree(centers).query(points[-1])[0].max() < reach
    assert len(set(uids)) == len(uids)
    referred = dataset.ReferencedSeriesSequence[0]
    assert {item.ReferencedSOPInstanceUID for item in referred.ReferencedInstanceSequence} == {uid for uid, _ in uids}
    source = pydicom.dcmread(case.prediction.source_files[0], stop_before_pixels=True)
    assert dataset.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert (dataset.BurnedInAnnotation, dataset.Modality) == ("NO", "OT")
    assert dataset.ImageType == ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    with pytest.raises(PyrasegError, match="1 screen capture"):  # it is no input of the next run
        find_series(path)
    for words in ("9a129038d9a0", "Pyraseg"):
        assert words in dataset.DerivationDescription
    read = itk.imread(str(path), itk.RGBPixel[itk.UC])  # by GDCM
    np.testing.assert_array_equal(itk.array_from_image(read), dataset.pixel_array)


def test_the_patient_is_in_the_header_and_nowhere_in_the_pixels(algorithm: Algorithm, tmp_path: Path) -> None:
    found = []
    for name in ("ZEBRA^STRIPED", "GNU^BRINDLED"):
        people = {"PatientName": name, "PatientID": name, "StudyDate": "19530101", "StudyID": "1"}
        write_series(tmp_path / name, letters().astype(np.int16), slice_step=4.0, **people)
        found.append(pydicom.dcmread(capture(algorithm, loaded(tmp_path / name, letters()))))
        assert found[-1].PatientName == name and found[-1].ImageComments == "Not for diagnosis"
    assert np.array_equal(found[0].pixel_array, found[1].pixel_array)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, "NO"),
        ({"BurnedInAnnotation": "NO"}, "NO"),
        ({"BurnedInAnnotation": "YES"}, "YES"),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, "YES"),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"], "BurnedInAnnotation": "NO"}, "NO"),
    ],
)
def test_burned_in_is_what_the_images_may_have(
    algorithm: Algorithm, tmp_path: Path, stated: dict[str, object], expected: str
) -> None:
    write_series(tmp_path / "in", letters().astype(np.int16), slice_step=4.0, **stated)
    assert pydicom.dcmread(capture(algorithm, loaded(tmp_path / "in", letters()))).BurnedInAnnotation == expected


def test_a_radiograph_has_no_place_and_may_have_writing_on_it(
    algorithm: Algorithm, real_data: Path, tmp_path: Path
) -> None:
    file = real_data / "dicom_robustness" / "RG3_J2KR.dcm"  # a radiograph without a frame of reference
    image = LoadImage(reader=MedicalImageReader(), ensure_channel_first=True, image_only=True)(file)[..., 0]
    labels = torch.zeros(image.shape, dtype=torch.uint8)
    labels[0, 300:700, 200:900] = 1
    prediction = Prediction("case", tmp_path / "case", MetaTensor(labels, meta=image.meta), image)
    path = capture(algorithm, prediction)
    assert complaints(path) == []
    dataset = pydicom.dcmread(path)
    (group,) = dataset.PerFrameFunctionalGroupsSequence
    assert "PlanePositionSequence" not in group and "FrameOfReferenceUID" not in dataset
    assert dataset.NumberOfFrames == 1 and dataset.BurnedInAnnotation == "YES"
    assert (dataset.pixel_array == color_of(np.array(1))).all(axis=-1).any()


def test_nothing_found_few_slices_and_no_dicom(case: Case, algorithm: Algorithm, tmp_path: Path) -> None:
    nothing = MetaTensor(torch.zeros_like(case.prediction.labels), meta=case.prediction.labels.meta)
    path = capture(algorithm, replace(case.prediction, labels=nothing), slices=3)
    assert complaints(path) == []
    assert pydicom.dcmread(path).NumberOfFrames == min(3, len(case.prediction.slices))
    image = MetaTensor(torch.zeros(1, 8, 8, 4))
    writer = CaptureWriter(
        class_names=NAMES, windows=WINDOW, algorithm=algorithm, sources=SourceImages(complete_headers=False)
    )
    assert writer(Prediction("x", tmp_path / "x", image.byte(), image)) is None
