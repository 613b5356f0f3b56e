# SPDX-License-Identifier: Apache-2.0
"""Segmentations of multi-frame objects, in every form in which scanners state where frames lie."""

from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage

from bundle.pyraseg.dicom.series import DicomImage, read_series
from bundle.pyraseg.dicom.sound import sound_sources
from bundle.pyraseg.dicom.source import read_sources
from bundle.pyraseg.labels.class_table import ClassTable
from bundle.pyraseg.labels.reading import read_dicom_label
from bundle.pyraseg.labels.references import ImageGrid
from bundle.pyraseg.labels.rtstruct_writer import write_structure_set
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from tests.helpers.corpus.nuclear import spect
from tests.helpers.dcmqi import dcmqi_points, same_points, voxel_points
from tests.helpers.dicom_files import (
    AXIAL,
    PATIENT,
    SAGITTAL,
    item,
    save,
    uid,
    write_enhanced,
    write_image,
    write_series,
)
from tests.helpers.segmented_series import complaints

CLASSES = [SegmentClass.organ("liver"), SegmentClass.organ("spleen")]
NAMES = ["background", "liver", "spleen"]
TABLE = ClassTable(NAMES)
SHAPE = (6, 24, 20)
ORDER = np.array([3, 0, 5, 1, 4, 2])  # of the frames in the file
GROUPS = {
    "orientation": ("PlaneOrientationSequence", {"ImageOrientationPatient": list(AXIAL)}),
    "measures": ("PixelMeasuresSequence", {"PixelSpacing": [1.5, 0.8], "SliceThickness": 3}),
}


def stack(path: Path, per_frame: str, places: np.ndarray, change: Callable[[Dataset], None] = lambda ds: None) -> Path:
    """Write an enhanced MR whose frames lie 3 mm apart at places, with some groups stated for each frame."""
    pixels = np.zeros((len(places), *SHAPE[1:]), np.int16)
    positions = np.add(np.outer(places, [0, 0, 3.0]), [-20, 30, 100])
    dataset = pydicom.dcmread(write_enhanced(path, pixels, positions, Modality="MR", **PATIENT))
    dataset.SOPClassUID = EnhancedMRImageStorage
    shared, frames = dataset.SharedFunctionalGroupsSequence[0], dataset.PerFrameFunctionalGroupsSequence
    for name, (sequence, values) in GROUPS.items():
        del shared[sequence]
        for owner in frames if name in per_frame else [shared]:
            setattr(owner, sequence, item(**values))
    change(dataset)
    return save(dataset, path)


def phases(dataset: Dataset) -> None:
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence = item(TemporalPositionIndex=number % 2 + 1)


def two_stacks(dataset: Dataset) -> None:
    """Turn every other frame about, as a second stack in the same object."""
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence = item(StackID=str(number % 2 + 1))
        if number % 2:
            frame.PlaneOrientationSequence = item(ImageOrientationPatient=list(SAGITTAL))
            frame.PlanePositionSequence = item(ImagePositionPatient=[3.0 * number, -20, 40])
            frame.PixelMeasuresSequence = item(PixelSpacing=[2, 2], SliceThickness=4)


def without_thickness(dataset: Dataset) -> None:
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.PixelMeasuresSequence[0].SliceThickness


def rounded(dataset: Dataset) -> None:
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        values = [1, 0, 1e-5 * number, 0, 1, 0]
        frame.PlaneOrientationSequence = item(ImageOrientationPatient=values)


BOTH = "orientation and measures"
TWICE = np.repeat(ORDER, 2)
FORMS = {
    "shared": ("", ORDER, lambda ds: None, {}),
    "measures per frame": ("measures", ORDER, lambda ds: None, {}),
    "orientation per frame": ("orientation", ORDER, lambda ds: None, {}),
    "both per frame": (BOTH, ORDER, lambda ds: None, {}),
    "orientation rounded otherwise in each frame": (BOTH, ORDER, rounded, {}),
    "one frame": (BOTH, ORDER[:1], lambda ds: None, {}),
    "one of two phases": (BOTH, TWICE, phases, {"TemporalPositionIndex": 2}),
    "one of two stacks": (BOTH, TWICE, two_stacks, {"StackID": "1"}),
    "the other stack": (BOTH, TWICE, two_stacks, {"StackID": "2"}),
    "no thickness": (BOTH, ORDER, without_thickness, {}),
    "no thickness, one of two phases": (BOTH, TWICE, lambda ds: (phases(ds), without_thickness(ds)),
                                        {"TemporalPositionIndex": 1}),
    "a slice is missing": (BOTH, np.array([4, 0, 2, 1]), lambda ds: None, {}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("form", "found", "kind"),
    [
        *((form, True, "BINARY") for form in FORMS),
        ("one of two stacks", False, "BINARY"),
        ("one frame", False, "BINARY"),
        *((form, True, "LABELMAP") for form in FORMS),
    ],
)
def test_every_form_gets_a_segmentation(tmp_path: Path, form: str, found: bool, kind: str) -> None:
    per_frame, places, change, select = FORMS[form]
    image = read_series(stack(tmp_path / "in.dcm", per_frame, places, change), select=select)
    mask = np.random.default_rng(0).integers(0, 3 if found else 1, image.pixels.shape, dtype=np.uint8)
    path, sources = tmp_path / "seg.dcm", read_sources(image.files)
    source = sources[0]
    write_segmentation(path, mask, sources, CLASSES, frame_numbers=image.frame_numbers, seg_type=kind)
    assert complaints(path) == []
    assert np.array_equal(read_dicom_label(path, ImageGrid.of(image), TABLE), mask)
    read = hd.seg.segread(path).get_pixels_by_source_frame(
        source.SOPInstanceUID, list(image.frame_numbers), combine_segments=True, ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )  # fmt: skip
    np.testing.assert_array_equal(read, mask)
    if found and form != "a slice is missing":  # ITK, by which dcmqi writes, has no uneven stacks
        theirs, grid = dcmqi_points(path), ImageGrid.of(image)
        for value in (1, 2):
            assert same_points(theirs[value], voxel_points(grid, mask == value))


def test_slices_of_frames_of_reference_of_their_own_get_a_segmentation(tmp_path: Path) -> None:
    write_series(tmp_path / "in", np.zeros(SHAPE, np.int16), SliceThickness=1, **PATIENT,
                 per_slice=lambda k: {"FrameOfReferenceUID": uid("frame", k)})  # fmt: skip
    image = read_series(tmp_path / "in", select="FrameOfReferenceUID=any")
    mask = np.random.default_rng(0).integers(0, 3, image.pixels.shape, dtype=np.uint8)
    write_segmentation(tmp_path / "seg.dcm", mask, read_sources(image.files), CLASSES)
    assert complaints(tmp_path / "seg.dcm") == []
    theirs, grid = dcmqi_points(tmp_path / "seg.dcm"), ImageGrid.of(image)
    assert all(same_points(theirs[value], voxel_points(grid, mask == value)) for value in (1, 2))


def test_a_real_enhanced_object_gets_a_segmentation_in_every_form(real_data: Path, tmp_path: Path) -> None:
    """The groups of a converted CT, as they are and stated for each frame."""
    file = next((real_data / "ct_liver_dicom_seg").rglob("mf.dcm"))
    for name, moved in (("as it is", ()), ("each", ("PixelMeasuresSequence", "PlaneOrientationSequence"))):
        dataset = pydicom.dcmread(file)
        shared = dataset.SharedFunctionalGroupsSequence[0]
        for group in [group for group in moved if group in shared]:
            for frame in dataset.PerFrameFunctionalGroupsSequence:
                setattr(frame, group, shared[group].value)
            del shared[group]
        dataset.save_as(tmp_path / f"{name}.dcm")
        image = read_series(tmp_path / f"{name}.dcm")
        mask = np.random.default_rng(0).integers(0, 3, image.pixels.shape, dtype=np.uint8)
        path = tmp_path / f"{name}_seg.dcm"
        write_segmentation(path, mask, read_sources(image.files), CLASSES, frame_numbers=image.frame_numbers)
        assert complaints(path) == []
        theirs, grid = dcmqi_points(path), ImageGrid.of(image)
        assert all(same_points(theirs[value], voxel_points(grid, mask == value)) for value in (1, 2))


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize("spacing", [None, [0.3, 0.2]])
def test_frames_without_a_place_are_segmented_by_reference(tmp_path: Path, found: bool, spacing: list | None) -> None:
    """A cine of ultrasound, as dciodvfy, highdicom and our own reader see what is written about it."""
    write_image(tmp_path / "cine.dcm", np.zeros((3, 8, 9), np.uint8), SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1",
                Modality="US", PixelSpacing=spacing, **PATIENT)  # fmt: skip
    image = read_series(tmp_path / "cine.dcm")
    mask = np.random.default_rng(0).integers(0, 3 if found else 1, (3, 8, 9), dtype=np.uint8)
    path, sources = tmp_path / "seg.dcm", read_sources(image.files)
    write_segmentation(path, mask, sources, CLASSES, frame_numbers=image.frame_numbers)
    assert image.geometry is None and complaints(path) == []
    np.testing.assert_array_equal(of_frames(path, image), mask)
    np.testing.assert_array_equal(read_dicom_label(path, ImageGrid.of(image), TABLE), mask)
    written = pydicom.dcmread(path)
    assert "FrameOfReferenceUID" not in written
    assert "PixelMeasuresSequence" not in written.SharedFunctionalGroupsSequence[0]


def test_a_lone_slice_without_a_thickness_gets_a_segmentation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_image(tmp_path / "in.dcm", np.zeros((24, 20), np.int16), ImagePositionPatient=[1, 2, 3],
                ImageOrientationPatient=list(AXIAL), PixelSpacing=[1, 1], **PATIENT)  # fmt: skip
    image = read_series(tmp_path / "in.dcm")
    mask = np.random.default_rng(0).integers(0, 3, (1, 24, 20), dtype=np.uint8)
    write_segmentation(tmp_path / "seg.dcm", mask, read_sources(image.files), CLASSES)
    assert "nothing tells the thickness of its only slice; 1 mm" in caplog.text
    assert complaints(tmp_path / "seg.dcm") == []
    theirs, grid = dcmqi_points(tmp_path / "seg.dcm"), ImageGrid.of(image)
    assert all(same_points(theirs[value], voxel_points(grid, mask == value)) for value in (1, 2))


def test_frames_of_nuclear_medicine_get_a_segmentation_in_their_place(tmp_path: Path) -> None:
    """Such an object tells the place of its first frame."""
    spect(tmp_path / "in")
    image = read_series(tmp_path / "in")
    mask = np.random.default_rng(0).integers(0, 3, image.pixels.shape, dtype=np.uint8)
    sources = sound_sources(read_sources(image.files))  # as the inference hands them on
    write_segmentation(tmp_path / "seg.dcm", mask, sources, CLASSES, frame_numbers=image.frame_numbers)
    assert complaints(tmp_path / "seg.dcm") == []
    theirs, grid = dcmqi_points(tmp_path / "seg.dcm"), ImageGrid.of(image)
    assert all(same_points(theirs[value], voxel_points(grid, mask == value)) for value in (1, 2))


@pytest.mark.parametrize("orientation", [["L", "F"], ["left", "F"], ["L"], ["X", "Y"], "", ["L", "F", "A"]])
def test_a_radiograph_tells_which_way_its_rows_run_if_it_does(tmp_path: Path, orientation: object) -> None:
    with pydicom.config.disable_value_validation():
        write_image(tmp_path / "in.dcm", np.zeros((24, 20), np.int16), Modality="DX", FrameOfReferenceUID=None,
                    SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1", PatientOrientation=orientation, **PATIENT)  # fmt: skip
    image = read_series(tmp_path / "in.dcm")
    write_segmentation(tmp_path / "seg.dcm", np.ones((1, 24, 20), np.uint8), read_sources(image.files), CLASSES)
    assert complaints(tmp_path / "seg.dcm") == []
    told = pydicom.dcmread(tmp_path / "seg.dcm").PatientOrientation
    assert list(told or []) == (orientation if orientation == ["L", "F"] else [])


def of_frames(path: Path, image: DicomImage) -> np.ndarray:
    """Return what highdicom reads for each slice of an image, by the frames that it names."""
    theirs, masks = hd.seg.segread(path), []
    for uid_, number in zip(image.sop_instance_uids, image.frame_numbers, strict=True):
        options = {"combine_segments": True, "ignore_spatial_locations": True, "assert_missing_frames_are_empty": True}
        masks.append(theirs.get_pixels_by_source_frame(uid_, [number], **options)[0])
    return np.stack(masks)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["concatenation", "volumes"])
def test_several_files_of_frames_get_one_segmentation(tmp_path: Path, form: str) -> None:
    """The parts of a concatenation (PS3.3 C.7.6.16.1.3), and volumes one above the other; frames lie in any order."""
    parts = np.array_split(ORDER, 3) if form == "concatenation" else [ORDER[ORDER < 3], ORDER[ORDER >= 3]]
    for number, places in enumerate(parts, 1):

        def change(dataset: Dataset, number: int = number) -> None:
            dataset.SOPInstanceUID = uid("part", number)
            if form == "concatenation":
                dataset.ConcatenationUID, dataset.InConcatenationNumber = uid("concatenation"), number
                dataset.InConcatenationTotalNumber, dataset.ConcatenationFrameOffsetNumber = 3, 2 * number - 2

        stack(tmp_path / "in" / f"{number}.dcm", BOTH, places, change)
    image = read_series(tmp_path / "in")
    assert len(image.pixels) == len(ORDER)
    mask = np.random.default_rng(0).integers(0, 3, image.pixels.shape, dtype=np.uint8)
    path, grid = tmp_path / "seg.dcm", ImageGrid.of(image)
    write_segmentation(path, mask, read_sources(image.files), CLASSES, frame_numbers=image.frame_numbers)
    assert complaints(path) == []
    instances = pydicom.dcmread(path).ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert sorted(one.ReferencedSOPInstanceUID for one in instances) == sorted(set(image.sop_instance_uids))
    np.testing.assert_array_equal(of_frames(path, image), mask)
    np.testing.assert_array_equal(read_dicom_label(path, grid, TABLE), mask)
    theirs = dcmqi_points(path)
    assert all(same_points(theirs[value], voxel_points(grid, mask == value)) for value in (1, 2))
    structures = tmp_path / "structures.dcm"
    write_structure_set(structures, mask, read_sources(image.files), image.geometry, NAMES[1:],
                        frame_numbers=image.frame_numbers, colors=[[9, 9, 9]] * 2, algorithm=("a", "1"))  # fmt: skip
    assert complaints(structures) == []
    np.testing.assert_array_equal(read_dicom_label(structures, grid, TABLE), mask)


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [("1.2.840.10008.5.1.4.1.1.5", "NM"), ("1.2.840.10008.5.1.4.1.1.6", "US"), ("1.3.12.2.1107.5.9.1", "CT"),
     ("1.2.840.113619.4.2", "MR"), ("1.2.840.10008.5.1.4.1.1.7", "OT")],
)  # fmt: skip
def test_images_of_retired_and_private_classes_get_a_segmentation(
    tmp_path: Path, sop_class: str, modality: str
) -> None:
    write_series(tmp_path / "in", np.zeros(SHAPE, np.int16), slice_step=3.0, SOPClassUID=sop_class, Modality=modality,
                 SliceThickness=3, **PATIENT)  # fmt: skip
    image = read_series(tmp_path / "in")
    mask = np.random.default_rng(0).integers(0, 3, image.pixels.shape, dtype=np.uint8)
    write_segmentation(tmp_path / "seg.dcm", mask, read_sources(image.files), CLASSES)
    assert complaints(tmp_path / "seg.dcm") == []
    written = pydicom.dcmread(tmp_path / "seg.dcm")
    references = written.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {reference.ReferencedSOPClassUID for reference in references} == {sop_class}
    np.testing.assert_array_equal(read_dicom_label(tmp_path / "seg.dcm", ImageGrid.of(image), TABLE), mask)
    theirs, grid = dcmqi_points(tmp_path / "seg.dcm"), ImageGrid.of(image)
    assert all(same_points(theirs[value], voxel_points(grid, mask == value)) for value in (1, 2))
