# SPDX-License-Identifier: Apache-2.0
"""Volumes are those of the voxels in the image files, and nothing found is a result of every writer."""

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import trimesh

from bundle.pyraseg.inference.writers.dicom_objects import Algorithm
from bundle.pyraseg.inference.writers.first_look import VolumeTable
from bundle.pyraseg.inference.writers.mesh import MeshWriter
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
    """A slice is missing: its neighbors stand for the gap, and the mesh is as large as they are."""
    labels = np.zeros((6, 24, 20), np.uint8)
    labels[:, 6:18, 5:15] = 1
    heights = [0, 2, 4, 8, 10, 12]
    for k, height in enumerate(heights):
        write_series(tmp_path / "in", labels[k : k + 1].astype(np.int16), origin=(0, 0, height), names=[f"{k}.dcm"],
                     InstanceNumber=k + 1)  # fmt: skip
    case = make_case(tmp_path / "in", lambda number: labels[number], tmp_path)
    assert case.prediction.geometry.slice_widths.tolist() == [2, 2, 3, 3, 2, 2]
    assert case.prediction.volumes[1] == 120 * 14
    (path,) = MeshWriter(class_names=NAMES)(case.prediction)
    assert trimesh.load(path).volume == pytest.approx(120 * 14, rel=0.02)


def test_a_lone_slice_has_no_volume(tmp_path: Path) -> None:
    labels = np.ones((1, 8, 9), np.uint8)
    write_series(tmp_path / "in", labels.astype(np.int16), SliceThickness=5)
    case = make_case(tmp_path / "in", lambda number: labels[number], tmp_path)
    rows = VolumeTable(output_dir=tmp_path, class_names=NAMES).measure(case.prediction)
    assert (rows[0]["voxels"], rows[0]["volume_ml"]) == (72, "")
    assert MeshWriter(class_names=NAMES)(case.prediction) is None
