# SPDX-License-Identifier: Apache-2.0
"""Segmentations that dcmqi and others wrote are read as their own tools read them."""

from pathlib import Path

import itk
import numpy as np
import pydicom
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.labels.class_table import ClassTable
from bundle.pyraseg.labels.reading import open_label, read_dicom_label
from bundle.pyraseg.labels.references import ImageGrid


def real_grid(real_data: Path, folder: str) -> ImageGrid:
    return ImageGrid.of(read_series(real_data / "ct_liver_dicom_seg" / folder))


def nrrd(real_data: Path, name: str) -> np.ndarray:
    """Return an array as ITK sees it: slices from -z up, rows, columns."""
    return np.asarray(itk.imread(real_data / "ct_liver_dicom_seg" / name))


def test_reads_what_dcmqi_wrote(real_data: Path) -> None:
    path = real_data / "ct_liver_dicom_seg" / "liver.dcm"
    label = read_dicom_label(path, real_grid(real_data, "ct-3slice"), ClassTable(["background", "liver"]))
    assert np.array_equal(label, nrrd(real_data, "liver_seg.nrrd") != 0)
    coded = ClassTable(["nothing", "Leber"], {"Leber": [["SCT", "10200004"]]})  # the file has SRT T-62000
    assert np.array_equal(read_dicom_label(path, real_grid(real_data, "ct-3slice"), coded), label)


@pytest.mark.parametrize("name", ["sparse-labelmap-noppv", "sparse-labelmap-ppv5"])
def test_reads_label_maps_that_dcmqi_wrote(real_data: Path, name: str) -> None:
    """Two of three slices are stored; in one file, padding of value 5 surrounds the liver."""
    path = real_data / "ct_liver_dicom_seg" / f"{name}.dcm"
    grid = real_grid(real_data, "24x38x3/image")
    label = read_dicom_label(path, grid, ClassTable(["nothing", "liver"]))
    stored = pydicom.dcmread(path).pixel_array == 1
    assert np.array_equal(label[[0, 2]] != 0, stored) and not label[1].any() and stored.any()
    theirs = nrrd(real_data, f"{name.replace('-', '_')}_seg.nrrd")
    assert np.array_equal(theirs[[0, -1]] == 1, stored)


@pytest.mark.parametrize("size", ["23x38x3", "24x38x3"])  # 23 columns: frames begin within a byte
def test_frames_begin_within_a_byte(real_data: Path, size: str) -> None:
    path = real_data / "ct_liver_dicom_seg" / size / "seg" / "label.seg"
    table = ClassTable(["background", "liver"])
    label = read_dicom_label(path, real_grid(real_data, f"{size}/image"), table)
    assert np.array_equal(label, nrrd(real_data, f"{size}/nrrd/label.nrrd") != 0)
    grid = real_grid(real_data, f"{size}/multiframe")  # the same slices as an enhanced object, another series
    with pytest.raises(PyrasegError, match="was drawn on the series"):
        read_dicom_label(path, grid, table)
    assert np.array_equal(read_dicom_label(path, grid, table, drawn_on="frame_of_reference"), label)


def test_overlaps_that_dcmqi_wrote(real_data: Path) -> None:
    path = real_data / "ct_liver_dicom_seg" / "partial_overlaps.dcm"
    colors = ["GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE"]
    grid = real_grid(real_data, "ct-3slice")
    with pytest.raises(PyrasegError, match=r"'GREEN' and '\w+' in \d+ pixels.* overlap"):
        read_dicom_label(path, grid, ClassTable(["background", *colors]))
    masks = np.zeros((5, *grid.shape), bool)
    for frame in open_label(path).frames():
        k = int(np.abs(grid.geometry.positions[:, 2] - frame.plane.position[2]).argmin())
        masks[frame.segment - 1, k] |= frame.mask
    order = colors[::-1]
    label = read_dicom_label(path, grid, ClassTable(["background", *colors], overlap_order=order))
    expected = np.zeros(grid.shape, np.uint8)
    for name in order:
        expected[masks[colors.index(name)]] = 1 + colors.index(name)
    assert np.array_equal(label, expected)


@pytest.mark.parametrize("name", ["liver_j2k", "liver_nonbyte_aligned", "liver_nonbyte_aligned_j2k"])
def test_frames_are_decoded_however_they_are_stored(real_data: Path, name: str) -> None:
    folder = real_data / "dicom_robustness"
    pairs = zip(open_label(folder / "liver.dcm").frames(), open_label(folder / f"{name}.dcm").frames(), strict=True)
    for plain, other in pairs:
        rows, columns = other.mask.shape  # those that do not end on a byte have one column less
        assert np.array_equal(plain.mask[:rows, :columns], other.mask)


@pytest.mark.parametrize("name", ["liver_deflate", "liver_nonbyte_aligned_rle"])
def test_what_cannot_be_decoded_gives_a_message(real_data: Path, name: str) -> None:
    with pytest.raises(PyrasegError, match=rf"{name}\.dcm cannot be decoded \(transfer syntax"):
        list(open_label(real_data / "dicom_robustness" / f"{name}.dcm").frames())
