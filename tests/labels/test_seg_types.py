# SPDX-License-Identifier: Apache-2.0
"""Segmentations of every type come back as they were: as highdicom wrote them and as dcmqi reads them."""

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.pixels.utils import pack_bits
from pydicom.uid import JPEGLSLossless, RLELossless

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.labels.class_table import ClassTable
from bundle.pyraseg.labels.reading import read_dicom_label
from tests.helpers.dcmqi import dcmqi_points, same_points, voxel_points
from tests.helpers.dicom_sources import REGULAR, SHAPE, STACKS, grid_of, letter_f, make_sources
from tests.helpers.seg_files import CODES, NAMES, TABLE, change, write


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_what_highdicom_wrote_comes_back(tmp_path: Path, kind: str, stack: str) -> None:
    sources, mask = make_sources(stack), letter_f()
    pixels = np.stack([mask == value for value in (1, 2, 3)], axis=3).astype(float) if kind == "FRACTIONAL" else mask
    path = write(tmp_path / "seg.dcm", pixels, sources, kind)
    assert np.array_equal(read_dicom_label(path, grid_of(sources), TABLE), mask)
    for order in ([3, 2, 1, 0], [2, 0, 3, 1]):  # matched by place, not by index
        shuffled = [sources[k] for k in order]
        assert np.array_equal(read_dicom_label(path, grid_of(shuffled), TABLE), mask[order])


@pytest.mark.parametrize("stack", REGULAR)
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_dcmqi_reads_what_we_read(tmp_path: Path, kind: str, stack: str) -> None:
    sources, mask = make_sources(stack), letter_f()
    path = write(tmp_path / "seg.dcm", mask, sources, kind)
    ours = read_dicom_label(path, grid_of(sources), TABLE)
    theirs = dcmqi_points(path)
    assert set(theirs) == {1, 3}
    assert all(same_points(points, voxel_points(grid_of(sources), ours == v)) for v, points in theirs.items())


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 0, 2), (1, 2, 0), (0, 2, 1)], ids=str)
@pytest.mark.parametrize("flip", [(), (0,), (1, 2)], ids=str)
@pytest.mark.parametrize("stack", ["axial", "oblique"])
def test_frames_may_cut_the_volume_along_other_axes(tmp_path: Path, stack: str, axes: tuple, flip: tuple) -> None:
    sources, mask = make_sources(stack), letter_f()
    row, column, step = (np.array(v, float) for v in STACKS[stack])
    affine = np.eye(4)
    affine[:3] = np.column_stack([step, column * 1.5, row * 0.8, sources[0].ImagePositionPatient])
    volume = hd.Volume(mask, affine, "PATIENT", frame_of_reference_uid=sources[0].FrameOfReferenceUID)
    volume = volume.permute_spatial_axes(axes)
    volume = volume.flip_spatial(flip) if flip else volume
    path = write(tmp_path / "seg.dcm", volume, sources)
    assert np.array_equal(read_dicom_label(path, grid_of(sources), TABLE), mask)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("kind", ["LABELMAP", "FRACTIONAL"])
def test_compressed_frames(tmp_path: Path, kind: str, syntax: str) -> None:
    sources, mask = make_sources("axial"), letter_f()
    pixels = np.stack([mask == value for value in (1, 2, 3)], axis=3).astype(float) if kind == "FRACTIONAL" else mask
    path = write(tmp_path / "seg.dcm", pixels, sources, kind, transfer_syntax_uid=syntax)
    assert np.array_equal(read_dicom_label(path, grid_of(sources), TABLE), mask)


def test_only_some_slices_out_of_order_with_a_gap_in_the_classes(tmp_path: Path) -> None:
    sources, mask = make_sources("reversed"), letter_f()
    mask[[0, 2]] = 0
    path = write(tmp_path / "seg.dcm", mask, sources)
    dataset = pydicom.dcmread(path)
    count = int(dataset.NumberOfFrames)
    assert count == 4  # two segments on two slices, of twelve
    order = [2, 0, 3, 1]
    dataset.PixelData = pack_bits(dataset.pixel_array[order].ravel())
    dataset.PerFrameFunctionalGroupsSequence = [dataset.PerFrameFunctionalGroupsSequence[k] for k in order]
    dataset.SegmentSequence = dataset.SegmentSequence[::-1]
    dataset.save_as(path)
    assert np.array_equal(read_dicom_label(path, grid_of(sources), TABLE), mask)
    turned = ClassTable(["background", "spleen", "lesion", "liver"])
    assert np.array_equal(read_dicom_label(path, grid_of(sources), turned), np.array([0, 3, 2, 1])[mask])


def test_a_frame_may_be_smaller_or_larger_than_the_image(tmp_path: Path) -> None:
    sources, mask = make_sources("oblique"), letter_f()
    path = write(tmp_path / "seg.dcm", mask, sources)
    grid = grid_of(sources)
    place = grid.geometry
    right, down = place.pixel_steps
    wider = grid_of(sources, shape=(4, 14, 20), geometry=replace(place, positions=place.positions - 2 * right))
    assert np.array_equal(read_dicom_label(path, wider, TABLE)[:, :, 2:13], mask)
    narrower = grid_of(sources, shape=(4, 12, 8), geometry=replace(place, positions=place.positions + down + right))
    assert np.array_equal(read_dicom_label(path, narrower, TABLE), mask[:, 1:13, 1:9])


def test_an_empty_segmentation_is_background(tmp_path: Path) -> None:
    sources = make_sources("axial")
    path = write(tmp_path / "seg.dcm", np.zeros(SHAPE, np.uint8), sources, omit_empty_frames=False)
    assert not read_dicom_label(path, grid_of(sources), TABLE).any()


@pytest.mark.parametrize("meaning", ["PROBABILITY", "OCCUPANCY"])
@pytest.mark.parametrize("most", [255, 100])
def test_a_fraction_counts_from_the_threshold_on(tmp_path: Path, meaning: str, most: int) -> None:
    sources = make_sources("coronal")
    fractions = np.linspace(0, 1, np.prod(SHAPE)).reshape(SHAPE)[..., None]
    path = write(tmp_path / "seg.dcm", fractions, sources, "FRACTIONAL", names=NAMES[:1], codes=CODES[:1],
                 fractional_type=meaning, max_fractional_value=most)  # fmt: skip
    stored = np.rint(fractions[..., 0] * most) / most
    for threshold in (0.25, 0.5, 0.9, 1):
        label = read_dicom_label(path, grid_of(sources), TABLE, fraction=threshold)
        assert np.array_equal(label, stored >= threshold)


def test_a_fraction_needs_its_maximum(tmp_path: Path) -> None:
    sources = make_sources("axial")
    fractions = (letter_f() == 1)[..., None].astype(float)
    path = write(tmp_path / "seg.dcm", fractions, sources, "FRACTIONAL", names=NAMES[:1], codes=CODES[:1])
    change(path, lambda ds: setattr(ds, "MaximumFractionalValue", 100))
    with pytest.raises(PyrasegError, match="holds the value 255, but Maximum Fractional Value is 100"):
        read_dicom_label(path, grid_of(sources), TABLE)
    change(path, lambda ds: delattr(ds, "MaximumFractionalValue"))
    with pytest.raises(PyrasegError, match="no Maximum Fractional Value"):
        read_dicom_label(path, grid_of(sources), TABLE)


def overlapping() -> np.ndarray:
    """Return liver, a lesion in it and beside it, and a spleen apart: (slices, rows, columns, 3)."""
    pixels = np.zeros((*SHAPE, 3), np.uint8)
    pixels[:, 2:8, 2:8, 0] = 1
    pixels[:, 4:9, 3:5, 1] = 1
    pixels[:, 12:, 9:, 2] = 1
    return pixels


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_overlapping_segments_need_an_order(tmp_path: Path, kind: str) -> None:
    sources, pixels = make_sources("axial"), overlapping()
    path = write(tmp_path / "seg.dcm", pixels.astype(float if kind == "FRACTIONAL" else np.uint8), sources, kind)
    with pytest.raises(PyrasegError, match=r"'liver' and 'lesion' in 32 pixels overlap, .* State in overlap_order"):
        read_dicom_label(path, grid_of(sources), TABLE)
    liver, lesion, spleen = (pixels[..., k].astype(bool) for k in range(3))
    for order in (["liver", "lesion"], ["lesion", "liver"], ["spleen", "lesion", "liver"]):
        table = ClassTable(TABLE.class_names, overlap_order=order)
        label = read_dicom_label(path, grid_of(sources), table)
        last = order[-1]
        assert np.array_equal(label == 1, liver & ~lesion if last == "lesion" else liver)
        assert np.array_equal(label == 2, lesion & ~liver if last == "liver" else lesion)
        assert np.array_equal(label == 3, spleen)
    merged = ClassTable(["background", "liver", "spleen"], {"liver": ["lesion"]})  # one class cannot overlap itself
    label = read_dicom_label(path, grid_of(sources), merged)
    assert np.array_equal(label, np.where(liver | lesion, 1, np.where(spleen, 2, 0)))
