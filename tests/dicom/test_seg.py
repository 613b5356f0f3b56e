# SPDX-License-Identifier: Apache-2.0
"""Segmentation objects: our own round trip, dcmqi's reading of ours, and our reading of dcmqi's."""

import subprocess
from pathlib import Path

import itk
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from bundle.pyraseg.dicom.seg import SegmentClass, read_segmentation, segmentation_to_slices, write_segmentation
from bundle.pyraseg.errors import PyrasegError

CLASSES = [SegmentClass.organ("liver"), SegmentClass.lesion("liver"), SegmentClass.organ("spleen")]
SPACING = (1.5, 0.8)  # rows, columns
SHAPE = (4, 14, 11)
TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0], [0.48, 0.64, 0.6]])  # an exact rotation
STACKS = {
    "axial": ([1, 0, 0], [0, 1, 0], [0, 0, 3]),
    "reversed": ([1, 0, 0], [0, 1, 0], [0, 0, -3]),
    "prone": ([-1, 0, 0], [0, -1, 0], [0, 0, 3]),
    "coronal": ([1, 0, 0], [0, 0, -1], [0, 3, 0]),
    "oblique": (TURN[:, 0], TURN[:, 1], 3 * TURN[:, 2]),
    "tilted": ([1, 0, 0], [0, 0.96, 0.28], [0, 0, 3]),
}


def make_sources(stack: str, count: int = SHAPE[0]) -> list[Dataset]:
    row, column, step = (np.array(v, float) for v in STACKS[stack])
    study, series, frame = (generate_uid() for _ in range(3))
    result = []
    for k in range(count):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.PatientID = ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.StudyID = ""
        ds.StudyDate, ds.StudyTime, ds.ReferringPhysicianName, ds.Modality = "20240101", "120000", "", "CT"
        ds.Rows, ds.Columns, ds.SeriesNumber, ds.InstanceNumber = *SHAPE[1:], 1, k + 1
        ds.ImagePositionPatient = [round(float(v), 6) for v in np.array([-20, 30, 100]) + k * step]
        ds.ImageOrientationPatient = [*row, *column]
        ds.PixelSpacing, ds.SliceThickness = list(SPACING), 3
        result.append(ds)
    return result


def letter_f() -> np.ndarray:
    """Return a mask that no flip or transposition maps onto itself, different in every slice; class 2 is missing."""
    mask = np.zeros(SHAPE, np.uint8)
    for k in range(SHAPE[0]):
        mask[k, 2:12, 2] = 1
        mask[k, 2, 2 : 9 - k] = 1
        mask[k, 6, 2 : 6 - k % 2] = 3
    return mask


def geometry(sources: list[Dataset]) -> tuple:
    first = sources[0]
    orientation = np.array(first.ImageOrientationPatient, float)
    positions = np.array([ds.ImagePositionPatient for ds in sources], float)
    return positions, orientation[:3], orientation[3:], SPACING, SHAPE[1:]


@pytest.mark.parametrize("stack", STACKS)
def test_round_trip_is_voxel_equal(tmp_path: Path, stack: str) -> None:
    sources, mask = make_sources(stack), letter_f()
    write_segmentation(tmp_path / "seg.dcm", mask, sources, CLASSES)
    segmentation = read_segmentation(tmp_path / "seg.dcm")
    assert segmentation.segments == {1: "liver", 2: "lesion", 3: "spleen"}
    assert np.array_equal(segmentation_to_slices(segmentation, *geometry(sources)), mask)
    for order in (slice(None, None, -1), [2, 0, 3, 1]):  # matched by place, not by index
        positions, *rest = geometry(sources)
        assert np.array_equal(segmentation_to_slices(segmentation, positions[order], *rest), mask[order])


def test_flipped_and_cropped_frames_are_turned_back(tmp_path: Path) -> None:
    sources, mask = make_sources("axial"), letter_f()
    write_segmentation(tmp_path / "seg.dcm", mask, sources, CLASSES)
    positions, row, column, *rest = geometry(sources)
    far_corner = positions + row * SPACING[1] * (SHAPE[2] - 1) + column * SPACING[0] * (SHAPE[1] - 1)
    segmentation = read_segmentation(tmp_path / "seg.dcm")
    assert np.array_equal(segmentation_to_slices(segmentation, far_corner, -row, -column, *rest), mask[:, ::-1, ::-1])
    wider = segmentation_to_slices(segmentation, positions - 2 * row * SPACING[1], row, column, SPACING, (14, 20))
    assert np.array_equal(wider[:, :, 2:13], mask)


def test_an_empty_mask_is_an_explicit_result(tmp_path: Path) -> None:
    sources, mask = make_sources("axial"), np.zeros(SHAPE, np.uint8)
    write_segmentation(tmp_path / "seg.dcm", mask, sources, CLASSES)
    segmentation = read_segmentation(tmp_path / "seg.dcm")
    assert len(segmentation.frames) == len(CLASSES) * SHAPE[0]
    assert not segmentation_to_slices(segmentation, *geometry(sources)).any()


def test_frames_refer_to_their_source_and_codes_are_written(tmp_path: Path) -> None:
    sources = make_sources("reversed")
    write_segmentation(tmp_path / "seg.dcm", letter_f(), sources, CLASSES, algorithm=("Pyraseg PSPNet", "1.0"))
    for frame in read_segmentation(tmp_path / "seg.dcm").frames:
        (source,) = (ds for ds in sources if ds.SOPInstanceUID == frame.referenced_sop_instance_uid)
        assert np.allclose(frame.position, source.ImagePositionPatient)
    lesion = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence[1]
    assert lesion.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert lesion.SegmentedPropertyTypeCodeSequence[0].CodeValue == "52988006"
    assert lesion.AnatomicRegionSequence[0].CodeValue == "10200004"
    assert lesion.SegmentAlgorithmType == "AUTOMATIC"


def test_a_seed_makes_the_bytes_repeat(tmp_path: Path) -> None:
    sources = make_sources("axial")
    for name, seed in (("a", 1), ("b", 1), ("c", 2), ("d", None), ("e", None)):
        write_segmentation(tmp_path / name, letter_f(), sources, CLASSES, deterministic_seed=seed)
    data = {name: (tmp_path / name).read_bytes() for name in "abcde"}
    assert data["a"] == data["b"]
    assert len(set(data.values())) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == list("abcde")  # no partial file stays


@pytest.mark.parametrize("stack", ["axial", "reversed", "oblique", "coronal"])
def test_dcmqi_reads_the_same_voxels(tmp_path: Path, stack: str) -> None:
    """Compare in patient millimetres, as dcmqi and ITK see them."""
    sources, mask = make_sources(stack), letter_f()
    write_segmentation(tmp_path / "seg.dcm", mask, sources, CLASSES)
    command = ["segimage2itkimage", "--inputDICOM", "seg.dcm", "--outputDirectory", ".", "-t", "nrrd", "-p", "out"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    positions, row, column, spacing, _ = geometry(sources)
    for value in (1, 3):
        image = itk.imread(tmp_path / f"out-{value}.nrrd")
        to_mm = np.asarray(image.GetDirection()) * np.asarray(image.GetSpacing())
        indices = np.argwhere(np.asarray(image))[:, ::-1]
        theirs = np.asarray(image.GetOrigin()) + indices @ to_mm.T
        k, r, c = np.nonzero(mask == value)
        ours = positions[k] + np.outer(r * spacing[0], column) + np.outer(c * spacing[1], row)
        assert len(ours) == len(theirs)
        gaps = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
        assert gaps.min(axis=1).max() < 1e-3
        assert gaps.min(axis=0).max() < 1e-3


def test_reads_what_dcmqi_wrote(real_data: Path) -> None:
    folder = real_data / "ct_liver_dicom_seg"
    sources = sorted((pydicom.dcmread(file, force=True) for file in (folder / "ct-3slice").iterdir()),
                     key=lambda ds: ds.ImagePositionPatient[2])  # fmt: skip
    orientation = np.array(sources[0].ImageOrientationPatient, float)
    labels = segmentation_to_slices(
        read_segmentation(folder / "liver.dcm"),
        np.array([ds.ImagePositionPatient for ds in sources], float),
        orientation[:3],
        orientation[3:],
        tuple(map(float, sources[0].PixelSpacing)),
        (512, 512),
    )
    truth = np.asarray(itk.imread(folder / "liver_spine_seg.nrrd"))  # ITK's order: slices, rows, columns, from -z up
    assert np.array_equal(labels == 1, truth == 1)


def test_overlapping_segments_are_refused(real_data: Path) -> None:
    folder = real_data / "ct_liver_dicom_seg"
    segmentation = read_segmentation(folder / "partial_overlaps.dcm")
    positions = [[-235.199997, -226.800003, z] for z in (-128.690002, -127.690002, -126.690002)]
    with pytest.raises(PyrasegError, match="overlap"):
        segmentation_to_slices(segmentation, positions, [1, 0, 0], [0, 1, 0], (0.810547, 0.810547), (512, 512))


def test_other_types_are_refused(real_data: Path) -> None:
    folder = real_data / "ct_liver_dicom_seg"
    with pytest.raises(PyrasegError, match=r"sparse-labelmap-noppv\.dcm is of type LABELMAP"):
        read_segmentation(folder / "sparse-labelmap-noppv.dcm")
    with pytest.raises(PyrasegError, match="no segmentation"):
        read_segmentation(folder / "ct-3slice" / "01.dcm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, r, c, s, shape: (np.add(p, [0, 0, 10]), r, c, s, shape), "from the nearest image slice"),
        (lambda p, r, c, s, shape: (np.add(p, [0.4, 0, 0]), r, c, s, shape), "another grid"),
        (lambda p, r, c, s, shape: (p, r, c, (1.6, 0.8), shape), "another grid"),
        (lambda p, r, c, s, shape: (p, r, c, s, (14, 8)), "another grid"),
        (lambda p, r, c, s, shape: (p, c, r, s[::-1], shape[::-1]), "another grid"),
    ],
    ids=["far", "shifted", "spacing", "size", "transposed"],
)
def test_frames_that_do_not_fit_are_refused(tmp_path: Path, change: object, message: str) -> None:
    sources = make_sources("axial")
    write_segmentation(tmp_path / "seg.dcm", letter_f(), sources, CLASSES)
    segmentation = read_segmentation(tmp_path / "seg.dcm")
    with pytest.raises(PyrasegError, match=message):
        segmentation_to_slices(segmentation, *change(*geometry(sources)))


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    sources = make_sources("axial")
    path = tmp_path / "seg.dcm"
    with pytest.raises(PyrasegError, match="the original grid"):
        write_segmentation(path, letter_f()[:, ::2], sources, CLASSES)
    with pytest.raises(PyrasegError, match="holds the value 3, but 2 classes"):
        write_segmentation(path, letter_f(), sources, CLASSES[:2])
    sources[1].SOPInstanceUID = ""
    with pytest.raises(PyrasegError, match="have no SOPInstanceUID"):
        write_segmentation(path, letter_f(), sources, CLASSES)
    with pytest.raises(PyrasegError, match="no SNOMED code for 'gizzard'"):
        SegmentClass.organ("gizzard")
    assert not list(tmp_path.iterdir())
