# SPDX-License-Identifier: Apache-2.0
"""Segmentations that we write: what is in them, and what dcmqi reads from them."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.labels.reading import open_label
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from tests.helpers.dcmqi import dcmqi_points, same_points, voxel_points
from tests.helpers.dicom_sources import SHAPE, grid_of, letter_f, make_sources

CLASSES = [SegmentClass.organ("liver"), SegmentClass.lesion("liver"), SegmentClass.organ("spleen")]


def test_an_empty_mask_is_an_explicit_result(tmp_path: Path) -> None:
    sources, mask = make_sources("axial"), np.zeros(SHAPE, np.uint8)
    write_segmentation(tmp_path / "seg.dcm", mask, sources, CLASSES)
    frames = list(open_label(tmp_path / "seg.dcm").frames())
    assert len(frames) == len(CLASSES) * SHAPE[0]
    assert not any(frame.mask.any() for frame in frames)


def test_frames_refer_to_their_source_and_codes_are_written(tmp_path: Path) -> None:
    sources = make_sources("reversed")
    write_segmentation(tmp_path / "seg.dcm", letter_f(), sources, CLASSES, algorithm=("Pyraseg PSPNet", "1.0"))
    for frame in open_label(tmp_path / "seg.dcm").frames():
        (source,) = (ds for ds in sources if ds.SOPInstanceUID == frame.source[0])
        assert np.allclose(frame.plane.position, source.ImagePositionPatient)
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
    """Compare in patient millimeters, as dcmqi and ITK see them."""
    sources, mask = make_sources(stack), letter_f()
    write_segmentation(tmp_path / "seg.dcm", mask, sources, CLASSES)
    theirs = dcmqi_points(tmp_path / "seg.dcm")
    assert set(theirs) == {1, 3}
    for value, points in theirs.items():
        assert same_points(points, voxel_points(grid_of(sources), mask == value))


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
