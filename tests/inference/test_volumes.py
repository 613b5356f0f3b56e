# SPDX-License-Identifier: Apache-2.0
"""Volumes are those of the voxels in the image files, and nothing found is a result of every writer."""

from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import trimesh
from monai.transforms import LoadImage

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.inference.writers.dicom_objects import Algorithm
from bundle.pyraseg.inference.writers.label_map import LabelMapWriter
from bundle.pyraseg.inference.writers.mesh import MeshWriter
from bundle.pyraseg.inference.writers.volumes import VolumeTable
from bundle.pyraseg.transforms.label import LabelReader
from bundle.pyraseg.transforms.reader import MedicalImageReader
from tests.helpers.dicom_files import PATIENT, write_series
from tests.helpers.segmented_series import NAMES, Case, complaints, make_case, segmentation_writer, structure_set_writer


def test_volumes(case: Case, tmp_path: Path) -> None:
    table = VolumeTable(output_dir=tmp_path, class_names=NAMES)
    _, down, right = next(iter(case.planes.values()))
    normal = np.cross(right, down)
    heights = np.sort([position @ normal / np.linalg.norm(normal) for position, *_ in case.planes.values()])
    for value, row in enumerate(table.measure(case.prediction), 1):
        count = len(case.points(value))
        assert row["voxels"] == count
        expected = count * np.linalg.norm(normal) * np.diff(heights).mean() / 1000
        assert float(row["volume_ml"]) == pytest.approx(expected, abs=1e-3)


def test_nothing_found_is_an_explicit_result(algorithm: Algorithm, tmp_path: Path) -> None:
    labels = np.zeros((3, 20, 24), np.int16)
    write_series(tmp_path / "in", labels, SliceThickness=1, **PATIENT)
    case = make_case(tmp_path / "in", lambda number: labels[number].astype(np.uint8), tmp_path)
    (path,) = segmentation_writer(algorithm)(case.prediction)
    assert complaints(path) == []
    segmentation = hd.seg.segread(path)
    assert [item.SegmentLabel for item in segmentation.SegmentSequence] == NAMES[1:]
    assert not segmentation.pixel_array.any() and segmentation.NumberOfFrames == 3 * (len(NAMES) - 1)
    (path,) = segmentation_writer(algorithm)(case.prediction)
    assert pydicom.dcmread(path).SOPInstanceUID != segmentation.SOPInstanceUID  # another run, another result
    (path,) = structure_set_writer(algorithm)(case.prediction)
    assert complaints(path) == []
    assert [roi.ROIName for roi in pydicom.dcmread(path).StructureSetROISequence] == NAMES[1:]
    rows = VolumeTable(output_dir=tmp_path, class_names=NAMES).measure(case.prediction)
    assert [(row["class"], row["voxels"], float(row["volume_ml"])) for row in rows] == [(n, 0, 0) for n in NAMES[1:]]
    stale = tmp_path / "case_liver.stl"
    stale.write_bytes(b"from a run before")
    assert MeshWriter(class_names=NAMES)(case.prediction) == [] and not stale.exists()


def test_uneven_slices(tmp_path: Path) -> None:
    """A slice is missing: its neighbors stand for no more than the others, and the mesh is as large as they are."""
    labels = np.zeros((6, 24, 20), np.uint8)
    labels[:, 6:18, 5:15] = 1
    heights = [0, 2, 4, 8, 10, 12]
    for k, height in enumerate(heights):
        write_series(tmp_path / "in", labels[k : k + 1].astype(np.int16), origin=(0, 0, height), names=[f"{k}.dcm"],
                     InstanceNumber=k + 1)  # fmt: skip
    case = make_case(tmp_path / "in", lambda number: labels[number], tmp_path)
    assert case.prediction.geometry.slice_widths.tolist() == [2] * 6
    assert case.prediction.volumes[1] == 120 * 12
    (path,) = MeshWriter(class_names=NAMES)(case.prediction)
    assert trimesh.load(path).volume == pytest.approx(120 * 12, rel=0.02)


@pytest.mark.parametrize("step", [[0, 0, 3], [0, 0.9, 3]], ids=["straight", "tilted"])
def test_nothing_is_counted_in_a_gap(tmp_path: Path, step: list[float]) -> None:
    """Two blocks of slices, 60 mm apart; the organ lies in the slices at the gap, as in a study of two parts."""
    labels = np.zeros((12, 24, 20), np.uint8)
    labels[4:8, 6:18, 5:15] = 1
    steps = np.arange(12) + 20 * (np.arange(12) > 5)
    write_series(tmp_path / "in", labels.astype(np.int16), SliceThickness=3, **PATIENT,
                 per_slice=lambda k: {"ImagePositionPatient": (steps[k] * np.array(step)).tolist()})  # fmt: skip
    case = make_case(tmp_path / "in", lambda number: labels[number], tmp_path)
    assert case.prediction.volumes[1] == pytest.approx(4 * 120 * 3)
    mesh = trimesh.load(MeshWriter(class_names=NAMES)(case.prediction)[0])
    assert mesh.is_watertight and len(mesh.split()) == 2
    assert mesh.volume == pytest.approx(4 * 120 * 3, rel=0.02)
    heights = np.sort([steps[k] * 3 for k in (4, 5, 6, 7)])
    for body, (low, high) in zip(
        sorted(mesh.split(), key=lambda b: b.bounds[0, 2]), heights.reshape(2, 2), strict=True
    ):
        assert body.bounds[:, 2] == pytest.approx([low - 1.5, high + 1.5], abs=0.5)
    (path,) = LabelMapWriter()(case.prediction)
    assert_same_places(nib.load(path), case)


@pytest.mark.parametrize("heights", [[0, 3, 6, 9, 16, 23, 30], [0, 2.5, 5, 9, 13], [0, 3, 12, 15], [30, 23, 16, 9, 6]])
def test_the_label_map_of_uneven_slices_is_true(tmp_path: Path, heights: list[float]) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (len(heights), 24, 20), dtype=np.uint8)
    write_series(tmp_path / "in", labels.astype(np.int16),
                 per_slice=lambda k: {"ImagePositionPatient": [5, 7, heights[k]]})  # fmt: skip
    case = make_case(tmp_path / "in", lambda number: labels[number], tmp_path)
    (path,) = LabelMapWriter()(case.prediction)
    image = nib.load(path)
    assert_same_places(image, case)
    step = image.header.get_zooms()[2]
    counted = np.count_nonzero(np.asarray(image.dataobj) == 1) * step
    assert counted == pytest.approx(case.prediction.volumes[1], rel=0.2)  # in steps of the grid
    read = LoadImage(reader=MedicalImageReader(), ensure_channel_first=True, image_only=True)(tmp_path / "in")
    back = LabelReader(class_names=NAMES).read(path, read)
    np.testing.assert_array_equal(back, np.asarray(case.prediction.labels[0]))


def test_slices_on_no_regular_grid_get_no_label_map(tmp_path: Path) -> None:
    labels = np.ones((9, 24, 20), np.uint8)
    heights = np.cumsum([0, 2.7134, 3.4043, 2.9414, 3.1415, 2.7182, 3.3166, 2.8284, 3.1623]).tolist()
    write_series(tmp_path / "in", labels.astype(np.int16),
                 per_slice=lambda k: {"ImagePositionPatient": [5, 7, heights[k]]})  # fmt: skip
    case = make_case(tmp_path / "in", lambda number: labels[number], tmp_path)
    with pytest.raises(PyrasegError, match=r"2\.713 to 3\.404 mm apart, not on any regular grid.*DICOM SEG"):
        LabelMapWriter()(case.prediction)


def assert_same_places(image: nib.Nifti1Image, case: Case) -> None:
    """Each slice of the series is a plane of the image: every pixel is where the file says, and what it was."""
    values, to_index = np.asarray(image.dataobj), np.linalg.inv(image.affine)
    for key, (position, down, right) in case.planes.items():
        rows, columns = np.indices(case.frames[key].shape)
        points = position + rows[..., None] * down + columns[..., None] * right
        exact = points * (-1, -1, 1) @ to_index[:3, :3].T + to_index[:3, 3]
        indices = np.rint(exact).astype(int)
        assert np.abs((exact - indices) @ image.affine[:3, :3].T).max() < 0.01
        np.testing.assert_array_equal(values[tuple(np.moveaxis(indices, -1, 0))], case.frames[key])


def test_a_lone_slice_has_no_volume(tmp_path: Path) -> None:
    labels = np.ones((1, 8, 9), np.uint8)
    write_series(tmp_path / "in", labels.astype(np.int16), SliceThickness=5)
    case = make_case(tmp_path / "in", lambda number: labels[number], tmp_path)
    rows = VolumeTable(output_dir=tmp_path, class_names=NAMES).measure(case.prediction)
    assert (rows[0]["voxels"], rows[0]["volume_ml"]) == (72, "")
    assert MeshWriter(class_names=NAMES)(case.prediction) is None
