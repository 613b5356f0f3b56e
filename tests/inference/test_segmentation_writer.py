# SPDX-License-Identifier: Apache-2.0
"""Segmentations lie where the image files say: read by highdicom, dcmqi and plain pydicom."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import highdicom as hd
import itk
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage
from scipy.spatial import cKDTree

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.inference.prediction import Prediction
from bundle.pyraseg.inference.writers.dicom_objects import Algorithm, SegmentationWriter, SourceImages
from bundle.pyraseg.inference.writers.mesh import MeshWriter
from bundle.pyraseg.inference.writers.volumes import VolumeTable
from bundle.pyraseg.labels.seg_writer import SegmentClass
from bundle.pyraseg.transforms.reader import MedicalImageReader
from tests.helpers.dicom_files import PATIENT, write_series
from tests.helpers.segmented_series import NAMES, Case, complaints, letters, segmentation_writer, structure_set_writer


def test_segmentation(case: Case, algorithm: Algorithm) -> None:
    (path,) = segmentation_writer(algorithm)(case.prediction)
    assert complaints(path) == []
    segmentation = hd.seg.segread(path)
    assert [item.SegmentLabel for item in segmentation.SegmentSequence] == NAMES[1:]
    uids = sorted({uid for uid, _ in case.frames})
    if len(uids) > 1:
        pixels = segmentation.get_pixels_by_source_instance(
            uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
        expected = [case.frames[uid, 1] for uid in uids]
    else:
        numbers = sorted(number for _, number in case.frames)
        pixels = segmentation.get_pixels_by_source_frame(
            uids[0], numbers, combine_segments=True, ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        )  # fmt: skip
        expected = [case.frames[uids[0], number] for number in numbers]
    np.testing.assert_array_equal(pixels, expected)
    readers = [points_by_pydicom] if is_tilted(case) else [points_by_pydicom, points_by_dcmqi]
    for read in readers:
        found = read(path)
        for value in range(1, len(NAMES)):
            assert_same_points(case.points(value), found.get(value, np.empty((0, 3))))


def assert_same_points(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert len(ours) == len(theirs)
    if len(ours):
        distances, partners = cKDTree(theirs).query(ours)
        assert distances.max() < 2e-3 and len(set(partners.tolist())) == len(ours)


def is_tilted(case: Case) -> bool:
    """Return whether the stack is sheared, which no ITK image can be, and so nothing that dcmqi writes."""
    geometry = case.prediction.geometry
    return bool(np.linalg.norm(np.cross(geometry.step, geometry.normal)) > 0.1)


def points_by_pydicom(path: Path) -> dict[int, np.ndarray]:
    """Return the voxel centers of every segment by the places of its frames."""
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    found: dict[int, list[np.ndarray]] = {}
    for group, mask in zip(dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array, strict=True):
        rows, columns = np.nonzero(mask)
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        points = position + rows[:, None] * column * spacing[0] + columns[:, None] * row * spacing[1]
        found.setdefault(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber, []).append(points)
    return {number: np.concatenate(points) for number, points in found.items()}


def points_by_dcmqi(path: Path) -> dict[int, np.ndarray]:
    """Return the voxel centers of every segment as dcmqi and ITK see them."""
    with TemporaryDirectory() as folder:
        command = ["segimage2itkimage", "--inputDICOM", str(path), "--outputDirectory", folder, "-t", "nrrd"]
        subprocess.run(command, check=True, capture_output=True)
        found = {}
        for file in Path(folder).glob("*.nrrd"):
            image = itk.imread(file)
            to_mm = np.asarray(image.GetDirection()) * np.asarray(image.GetSpacing())
            indices = np.argwhere(itk.array_from_image(image))[:, ::-1]
            found[int(file.stem)] = np.asarray(image.GetOrigin()) + indices @ to_mm.T
    return found


def test_the_header_says_what_segmented_what(case: Case, algorithm: Algorithm) -> None:
    (path,) = segmentation_writer(algorithm)(case.prediction)
    segmentation = pydicom.dcmread(path)
    lesion = segmentation.SegmentSequence[1]
    kind = lesion.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue) == ("52988006", "24028007")
    assert lesion.AnatomicRegionSequence[0].CodeValue == "10200004"
    identification = lesion.SegmentationAlgorithmIdentificationSequence[0]
    assert identification.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
    assert identification.AlgorithmName == "Pyraseg"
    assert identification.AlgorithmVersion.endswith("weights 9a129038d9a0")  # sha256sum of "weights"
    referenced = segmentation.ReferencedSeriesSequence[0]
    source = pydicom.dcmread(case.prediction.source_files[0], stop_before_pixels=True)
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} == {
        uid for uid, _ in case.frames
    }


def test_incomplete_headers(algorithm: Algorithm, tmp_path: Path) -> None:
    labels = letters()
    missing = {"StudyInstanceUID": None, "SeriesInstanceUID": None, "SOPClassUID": None, "FrameOfReferenceUID": None}
    write_series(tmp_path / "in", labels.astype(np.int16), slice_step=4.0, SliceThickness=4, meta=False,
                 per_slice=lambda k: {"SOPInstanceUID": None}, **missing, **PATIENT)  # fmt: skip
    files = sorted((tmp_path / "in").iterdir())
    image = LoadImage(reader=MedicalImageReader(), ensure_channel_first=True, image_only=True)(tmp_path / "in")
    prediction = Prediction(
        "case", tmp_path / "case", MetaTensor(torch.from_numpy(labels.T.copy())[None], meta=image.meta), image
    )
    with pytest.raises(PyrasegError, match=r"no SOPClassUID, SOPInstanceUID, .*SeriesInstanceUID .*complete_headers"):
        segmentation_writer(algorithm)(prediction)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "in"]
    before = [file.read_bytes() for file in files]
    uids = []
    for _ in range(2):  # a second run makes the same copy
        (path,) = segmentation_writer(algorithm, complete_headers=True)(prediction)
        copies = [pydicom.dcmread(tmp_path / "case_series" / file.name) for file in files]
        uids.append([copy.SOPInstanceUID for copy in copies])
    assert uids[0] == uids[1] and len(set(uids[0])) == len(files)
    assert [file.read_bytes() for file in files] == before
    assert complaints(path) == []
    segmentation = hd.seg.segread(path)
    pixels = segmentation.get_pixels_by_source_instance(
        uids[0], combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels, labels)
    np.testing.assert_array_equal(np.stack([copy.pixel_array for copy in copies]), labels)


def test_a_projection_is_referred_to_without_a_place(algorithm: Algorithm, real_data: Path, tmp_path: Path) -> None:
    file = real_data / "dicom_robustness" / "RG3_J2KR.dcm"  # a radiograph without a frame of reference
    image = LoadImage(reader=MedicalImageReader(), ensure_channel_first=True, image_only=True)(file)[..., 0]
    labels = torch.zeros(image.shape, dtype=torch.uint8)
    labels[0, 300:700, 200:900] = 1
    prediction = Prediction("case", tmp_path / "case", MetaTensor(labels, meta=image.meta), image)
    (path,) = segmentation_writer(algorithm)(prediction)
    assert complaints(path) == []
    segmentation, source = hd.seg.segread(path), pydicom.dcmread(file)
    pixels = segmentation.get_pixels_by_source_instance(
        [source.SOPInstanceUID], combine_segments=True, ignore_spatial_locations=True
    )
    np.testing.assert_array_equal(pixels[0], labels[0].numpy().T)
    assert structure_set_writer(algorithm)(prediction) is None
    assert VolumeTable(output_dir=tmp_path, class_names=NAMES).measure(prediction)[0]["volume_ml"] == ""


def test_codes_are_asked_for_before_anything_is_segmented(algorithm: Algorithm) -> None:
    sources = SourceImages(complete_headers=False)
    with pytest.raises(PyrasegError, match=r"has none for tumor\. Give them"):
        SegmentationWriter(class_names=["background", "tumor"], terminology={}, algorithm=algorithm, sources=sources)
    for codes, message in (({"typ": []}, "has typ; it needs a type"), ({"type": ["1", "SCT"]}, "The type of 'x'")):
        with pytest.raises(PyrasegError, match=message):
            SegmentClass.from_codes("x", codes)
    with pytest.raises(PyrasegError, match="no mesh format 'obj'"):
        MeshWriter(class_names=NAMES, format="obj")
