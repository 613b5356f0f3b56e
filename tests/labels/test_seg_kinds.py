# SPDX-License-Identifier: Apache-2.0
"""Segmentations that we write as label maps and as probabilities: read by highdicom, dcmqi, pydicom and ourselves."""

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.labels.class_table import ClassTable
from bundle.pyraseg.labels.reading import open_label, read_dicom_label
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from tests.helpers.dcmqi import dcmqi_points, same_points, voxel_points
from tests.helpers.dicom_sources import REGULAR, SHAPE, STACKS, grid_of, letter_f, make_sources
from tests.helpers.seg_files import change
from tests.helpers.segmented_series import complaints

CLASSES = [SegmentClass.organ("liver"), SegmentClass.lesion("liver"), SegmentClass.organ("spleen")]
TABLE = ClassTable(["background", "liver", "lesion", "spleen"])


def probabilities() -> np.ndarray:
    """Return a share of each class for every voxel, with the background at most 1 together, float32."""
    shares = np.random.default_rng(0).dirichlet([1, 1, 1, 1], SHAPE)
    return shares[..., 1:].astype(np.float32)


@pytest.mark.parametrize("stack", STACKS)
def test_a_label_map_comes_back_from_every_program(tmp_path: Path, stack: str) -> None:
    sources, mask = make_sources(stack), letter_f()
    path = tmp_path / "seg.dcm"
    write_segmentation(path, mask, sources, CLASSES, algorithm=("Pyraseg", "1"), seg_type="LABELMAP")
    assert complaints(path) == []
    assert np.array_equal(read_dicom_label(path, grid_of(sources), TABLE), mask)
    segmentation = hd.seg.segread(path)
    assert (segmentation.SOPClassUID, segmentation.SegmentsOverlap) == ("1.2.840.10008.5.1.4.1.1.66.7", "NO")
    assert [item.SegmentLabel for item in segmentation.SegmentSequence] == ["Background", "liver", "lesion", "spleen"]
    uids = [source.SOPInstanceUID for source in sources]
    assert np.array_equal(segmentation.get_pixels_by_source_instance(uids, combine_segments=True), mask)
    if stack in REGULAR:  # dcmqi writes images of ITK, which none of a tilted stack is
        theirs = dcmqi_points(path)
        assert set(theirs) == {1, 3}
        assert all(same_points(points, voxel_points(grid_of(sources), mask == v)) for v, points in theirs.items())


def test_probabilities_are_stored_in_steps_of_a_255th(tmp_path: Path) -> None:
    sources, shares = make_sources("oblique"), probabilities()
    shares[0, 0, :2] = [[0.5, 0.5, 0], [0.5 + 1e-6, 0, 0]]
    path = tmp_path / "seg.dcm"
    write_segmentation(path, shares, sources, CLASSES, algorithm=("Pyraseg", "1"), seg_type="FRACTIONAL")
    assert complaints(path) == []
    dataset = pydicom.dcmread(path)
    kind = dataset.SegmentationType, dataset.SegmentationFractionalType, dataset.MaximumFractionalValue
    assert kind == ("FRACTIONAL", "PROBABILITY", 255)
    found = np.zeros(shares.shape)
    for group, pixels in zip(dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array, strict=True):
        reference = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        (k,) = (k for k, source in enumerate(sources) if source.SOPInstanceUID == reference)
        found[k, ..., group.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1] = pixels / 255
    assert np.abs(found - shares).max() <= 0.5 / 255 + 1e-6
    theirs = hd.seg.segread(path).get_pixels_by_source_instance([source.SOPInstanceUID for source in sources])
    np.testing.assert_allclose(theirs, found, atol=1e-6)
    # What counts as a label is what the network counts: more than half.
    expected = np.where((shares > 0.5).any(axis=-1), shares.argmax(axis=-1) + 1, 0)
    assert expected[0, 0, :2].tolist() == [0, 1]
    assert np.array_equal(read_dicom_label(path, grid_of(sources), TABLE), expected)


@pytest.mark.parametrize("kind", ["LABELMAP", "FRACTIONAL"])
def test_nothing_found_is_an_explicit_result(tmp_path: Path, kind: str) -> None:
    sources, path = make_sources("axial"), tmp_path / "seg.dcm"
    nothing = np.full((*SHAPE, 3), 1e-4) if kind == "FRACTIONAL" else np.zeros(SHAPE, np.uint8)
    write_segmentation(path, nothing, sources, CLASSES, seg_type=kind)
    assert complaints(path) == []
    assert pydicom.dcmread(path).NumberOfFrames == (12 if kind == "FRACTIONAL" else 4)
    assert not any(frame.mask.any() for frame in open_label(path).frames())
    assert not read_dicom_label(path, grid_of(sources), TABLE).any()


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_the_same_labels_whatever_the_type_and_a_seed_repeats_the_bytes(tmp_path: Path, kind: str) -> None:
    sources, mask = make_sources("coronal"), letter_f()
    pixels = np.stack([mask == value for value in (1, 2, 3)], axis=-1) * 0.9 if kind == "FRACTIONAL" else mask
    for name in "ab":
        write_segmentation(tmp_path / name, pixels, sources, CLASSES, seg_type=kind, deterministic_seed=1)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert np.array_equal(read_dicom_label(tmp_path / "a", grid_of(sources), TABLE), mask)


def orientation_per_frame(dataset: Dataset) -> None:
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.PlaneOrientationSequence = shared.PlaneOrientationSequence
        group.PixelMeasuresSequence = shared.PixelMeasuresSequence
    del shared.PlaneOrientationSequence, shared.PixelMeasuresSequence


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_the_orientation_may_stand_with_each_frame(tmp_path: Path, kind: str) -> None:
    sources, mask = make_sources("tilted"), letter_f()
    write_segmentation(tmp_path / "seg.dcm", mask, sources, CLASSES, seg_type=kind)
    path = change(tmp_path / "seg.dcm", orientation_per_frame)
    assert np.array_equal(read_dicom_label(path, grid_of(sources), TABLE), mask)


def test_what_a_type_cannot_hold_is_refused(tmp_path: Path) -> None:
    sources, path = make_sources("axial"), tmp_path / "seg.dcm"
    with pytest.raises(PyrasegError, match="LABELMAP has one segment a pixel, and the regions of this model overlap"):
        write_segmentation(path, letter_f(), sources, CLASSES, seg_type="LABELMAP", overlapping=True)
    with pytest.raises(PyrasegError, match=r"no DICOM SEG of type 'LABELMAPS'.*nearest name is 'LABELMAP'"):
        write_segmentation(path, letter_f(), sources, CLASSES, seg_type="LABELMAPS")
    for pixels in (letter_f(), probabilities()[..., :2], probabilities() > 0.5):
        with pytest.raises(PyrasegError, match="a FRACTIONAL segmentation needs probabilities, float"):
            write_segmentation(path, pixels, sources, CLASSES, seg_type="FRACTIONAL")
    assert not list(tmp_path.iterdir())
