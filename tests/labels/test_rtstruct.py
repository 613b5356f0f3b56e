# SPDX-License-Identifier: Apache-2.0
"""Structure sets written with pydicom come back as masks: area, centroid, holes, slices, and what is refused."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.geometry import Geometry
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.labels.class_table import ClassTable
from bundle.pyraseg.labels.reading import read_dicom_label
from bundle.pyraseg.labels.references import ImageGrid
from tests.helpers.dicom_sources import STACKS
from tests.helpers.regions import INNER, KEYHOLE, OUTER, REGIONS, SHAPE, moments, perimeter
from tests.helpers.structure_sets import write_structure_set

SPACING = (0.9, 0.7)  # rows, columns
SLICES = 5
TABLE = ClassTable(["background", "liver", "lesion", "spleen"])
UIDS = {"series_uid": generate_uid(), "frame_of_reference_uid": generate_uid()}


def make_grid(stack: str = "axial", **changes: object) -> ImageGrid:
    row, column, step = (np.array(v, float) for v in STACKS[stack])
    geometry = Geometry(np.array([-20, 30, 100]) + np.arange(SLICES)[:, None] * step, row, column, SPACING)
    return ImageGrid((SLICES, *SHAPE), **{"geometry": geometry, **UIDS, **changes})


def in_mm(grid: ImageGrid, slice_index: int, contour: np.ndarray) -> np.ndarray:
    """Return the LPS mm of corners given as row and column, by PS3.3 C.7.6.2.1.1."""
    (rows, columns), geometry = contour.T, grid.geometry
    return (
        geometry.positions[slice_index]
        + np.outer(rows * SPACING[0], geometry.column_cosine)
        + np.outer(columns * SPACING[1], geometry.row_cosine)
    )


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("name", REGIONS)
def test_known_polygons_come_back(tmp_path: Path, name: str, stack: str) -> None:
    contours, signs = REGIONS[name]
    grid = make_grid(stack)
    placed = [in_mm(grid, k, contour) for k in (3, 1) for contour in contours]
    label = read_dicom_label(write_structure_set(tmp_path / "rt.dcm", {"Liver": placed}, **UIDS), grid, TABLE)
    area, *weighted = sum(sign * moments(contour) for contour, sign in zip(contours, signs, strict=True))
    assert not label[[0, 2, 4]].any()
    for k in (1, 3):
        assert abs((label[k] == 1).sum() - area) < 0.1 * sum(map(perimeter, contours))
        assert np.abs(np.argwhere(label[k]).mean(axis=0) - np.array(weighted) / area).max() < 0.1


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR", "keyhole"])
def test_a_hole_in_every_way_of_writing_one(tmp_path: Path, kind: str) -> None:
    grid = make_grid("oblique")
    contours = [in_mm(grid, 2, KEYHOLE)]
    if kind != "keyhole":
        contours = [(in_mm(grid, 2, contour), kind) for contour in (OUTER, INNER)]
    label = read_dicom_label(write_structure_set(tmp_path / "rt.dcm", {"Liver": contours}, **UIDS), grid, TABLE)
    area = moments(OUTER)[0] - moments(INNER)[0]
    assert abs(label.sum() - area) < 0.1 * (perimeter(OUTER) + perimeter(INNER))
    assert not label[2, 47, 50]


def test_contours_that_lie_on_no_slice_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grid = make_grid()
    placed = in_mm(grid, 2, OUTER)
    beyond, between = (placed + np.array([0, 0, off]) for off in (12, 1.4))
    path = write_structure_set(tmp_path / "rt.dcm", {"Liver": [beyond, placed, between]}, **UIDS)
    with caplog.at_level(logging.WARNING):
        label = read_dicom_label(path, grid, TABLE)
    assert [bool(plane.any()) for plane in label] == [False, False, True, False, False]
    assert "2 of 3 contours lie on no slice of the image, but 1.4 to 6.0 mm from one" in caplog.text
    path = write_structure_set(tmp_path / "rt.dcm", {"Liver": [beyond, between]}, **UIDS)
    with pytest.raises(PyrasegError, match="none of its 2 contours lies on a slice of the image"):
        read_dicom_label(path, grid, TABLE)


def test_points_outside_of_the_image_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An arm outside of the field of view, the body around all of it, and what only touches the edge."""
    grid = make_grid("oblique")
    rows, columns = SHAPE
    arm = np.array([[5, columns - 4.5], [5, columns + 9.5], [9, columns + 9.5], [9, columns - 4.5]])
    edge = np.array([[-0.5, -0.5], [-0.5, columns - 0.5], [rows - 0.5, columns - 0.5], [rows - 0.5, -0.5]])
    drawn = [in_mm(grid, 0, arm), in_mm(grid, 1, 3 * edge), in_mm(grid, 2, edge)]
    with caplog.at_level(logging.WARNING):
        label = read_dicom_label(write_structure_set(tmp_path / "rt.dcm", {"Liver": drawn}, **UIDS), grid, TABLE)
    inside = np.zeros((SLICES, *SHAPE), bool)
    inside[0, 5:10, columns - 4 :] = True
    inside[1:3] = True
    assert np.array_equal(label == 1, inside)
    far = np.hypot((2 * rows - 1) * SPACING[0], (2 * columns - 1) * SPACING[1])
    assert f"6 points of 2 contours lie outside of the image, by up to {far:.1f} mm" in caplog.text


def test_contours_all_outside_of_the_image_are_refused(tmp_path: Path) -> None:
    grid = make_grid()
    away = in_mm(grid, 2, np.add(OUTER, [0, 2 * SHAPE[1]]))
    path = write_structure_set(tmp_path / "rt.dcm", {"Liver": [away]}, **UIDS)
    with pytest.raises(PyrasegError, match="all of its 1 contours lie outside of the image, by up to"):
        read_dicom_label(path, grid, TABLE)


def test_coordinates_may_be_rounded(tmp_path: Path) -> None:
    positions = np.array([[-20, 30, -127.690002 + 1.25 * k] for k in range(SLICES)])
    grid = make_grid(geometry=replace(make_grid().geometry, positions=positions))
    placed = np.round(in_mm(grid, 3, OUTER), 1)
    label = read_dicom_label(write_structure_set(tmp_path / "rt.dcm", {"Liver": [placed]}, **UIDS), grid, TABLE)
    assert label[3].any() and not label[[0, 1, 2, 4]].any()


def test_contours_that_cross_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grid = make_grid()
    both = [in_mm(grid, 0, OUTER), in_mm(grid, 0, OUTER + 5)]
    with caplog.at_level(logging.WARNING):
        read_dicom_label(write_structure_set(tmp_path / "rt.dcm", {"Liver": both}, **UIDS), grid, TABLE)
    assert "contours of one ROI repeat or cross on 1 slices (Liver)" in caplog.text


def test_rois_are_matched_by_name_or_code_or_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grid = make_grid()
    rois = {
        "BODY": [in_mm(grid, k, OUTER * 1.05) for k in range(SLICES)],
        "Hepar": [in_mm(grid, 1, OUTER)],
        "GTV 1": [in_mm(grid, 1, INNER)],
        "Isocenter": [(in_mm(grid, 1, INNER[:1]), "POINT")],
        "Empty": [],
    }
    path = write_structure_set(tmp_path / "rt.dcm", rois, codes={"Hepar": ("SRT", "T-62000")}, **UIDS)
    with pytest.raises(PyrasegError, match=r"has ROIs named \['BODY', 'GTV 1', 'Hepar'\].*'Hepar' \(SRT T-62000 x\)"):
        read_dicom_label(path, grid, TABLE)
    names = {"background": ["body"], "liver": [["SCT", "10200004"]], "lesion": ["GTV*"]}
    table = ClassTable(TABLE.class_names, names, ["liver", "lesion"])
    with caplog.at_level(logging.INFO):
        label = read_dicom_label(path, grid, table)
    assert "no closed contour in the ROIs ['Isocenter', 'Empty']" in caplog.text
    assert label[1, 47, 50] == 2 and label[1, 20, 52] == 1 and not label[[0, 2, 3, 4]].any()
    with pytest.raises(PyrasegError, match=r"'liver' and 'lesion' in \d+ pixels overlap"):
        read_dicom_label(path, grid, ClassTable(TABLE.class_names, names))


def test_structure_sets_of_other_images_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grid = make_grid()
    path = write_structure_set(tmp_path / "rt.dcm", {"Liver": [in_mm(grid, 2, OUTER)]}, **UIDS)
    expected = read_dicom_label(path, grid, TABLE)
    other = make_grid(series_uid=generate_uid())
    with caplog.at_level(logging.WARNING):  # the images may have been exported anew
        assert np.array_equal(read_dicom_label(path, other, TABLE), expected)
    assert f"names no image but the series {UIDS['series_uid']}" in caplog.text
    caplog.clear()
    assert np.array_equal(read_dicom_label(path, other, TABLE, drawn_on="frame_of_reference"), expected)
    assert not caplog.text
    with pytest.raises(PyrasegError, match="lies in the frame of reference"):
        read_dicom_label(path, make_grid(series_uid=generate_uid(), frame_of_reference_uid=generate_uid()), TABLE)
    with caplog.at_level(logging.WARNING):  # the series decides: some programs write a new frame of reference
        found = read_dicom_label(path, make_grid(frame_of_reference_uid=generate_uid()), TABLE)
    assert np.array_equal(found, expected)
    assert "names another frame of reference" in caplog.text
    with pytest.raises(PyrasegError, match="whose slices have a patient position"):
        read_dicom_label(path, make_grid(geometry=None), TABLE)
    sagittal = make_grid("sagittal")
    with pytest.raises(PyrasegError, match="across the image's slices"):
        read_dicom_label(path, sagittal, TABLE)


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("ContourData", [1, 2, 3, 4], r"Contour 1 of ROI 3 in .* has 4 coordinates"),
        ("ContourData", None, "has 0 coordinates"),
        ("ContourGeometricType", "CURVED", "Contour 1 of ROI 3 .* unknown type 'CURVED', not CLOSED_PLANAR"),
        ("ContourGeometricType", None, "unknown type ''"),
    ],
)
def test_a_damaged_contour_gives_a_message(tmp_path: Path, keyword: str, value: object, message: str) -> None:
    grid = make_grid()
    path = write_structure_set(tmp_path / "rt.dcm", {"Liver": [in_mm(grid, 2, OUTER)]}, **UIDS)
    dataset = pydicom.dcmread(path)
    setattr(dataset.ROIContourSequence[0].ContourSequence[0], keyword, value)
    dataset.save_as(path)
    with pytest.raises(PyrasegError, match=message):
        read_dicom_label(path, grid, TABLE)


def test_contours_of_an_roi_without_a_name_give_a_message(tmp_path: Path) -> None:
    grid = make_grid()
    path = write_structure_set(tmp_path / "rt.dcm", {"Liver": [in_mm(grid, 2, OUTER)]}, **UIDS)
    dataset = pydicom.dcmread(path)
    dataset.StructureSetROISequence[0].ROINumber = 8
    dataset.save_as(path)
    with pytest.raises(PyrasegError, match=r"has contours of the ROIs \[3\], which it does not name"):
        read_dicom_label(path, grid, TABLE)


# --- files of others ---


def test_reads_what_rt_utils_wrote(real_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A square of 24 mm with a hole of 15 mm whose corners are cut: 351.5 mm2 by the shoelace formula."""
    folder = real_data / "ct_rtstruct" / "mock_data"
    image = read_series([folder / "ct_1.dcm", folder / "ct_2.dcm"])
    label = read_dicom_label(folder / "rt.dcm", ImageGrid.of(image), ClassTable(["background", "ROI-1"]))
    assert "names another frame of reference" in caplog.text  # rt-utils makes one up
    corners = pydicom.dcmread(folder / "rt.dcm").ROIContourSequence[0].ContourSequence
    outer, inner = (np.reshape(np.array(c.ContourData, float), (-1, 3))[:, 1::-1] for c in corners)
    area = moments(outer)[0] - moments(inner)[0]
    assert area == pytest.approx(351.5)
    pixel = 0.488281
    assert abs(label[0].sum() * pixel**2 - area) < 0.1 * pixel * (perimeter(outer) + perimeter(inner))
    centroid = (moments(outer) - moments(inner))[1:] / area
    # Its sides run along the pixels, so a whole row of centers lies in or out at once: 0.13 pixels here.
    assert np.abs(np.argwhere(label[0]).mean(axis=0) * pixel - 125 - centroid).max() < 0.2 * pixel
    assert not label[1].any()


def test_absent_slices_of_a_real_structure_set_are_counted(real_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = real_data / "ct_rtstruct"
    image = read_series([folder / "mock_data" / name for name in ("ct_1.dcm", "ct_2.dcm")])
    names = [f"ROI-{number}" for number in range(1, 5)]
    path = folder / "empty" / "dummy_rt.dcm"
    label = read_dicom_label(path, ImageGrid.of(image), ClassTable(["background", *names]))
    assert "4 of 12 contours lie on no slice of the image, but 5.0 to 5.0 mm" in caplog.text  # those at z = 70
    for number, roi in enumerate(pydicom.dcmread(path).ROIContourSequence, 1):
        for contour in roi.ContourSequence:
            points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
            if points[0, 2] < 70:
                k = int(points[0, 2] > 62)
                found = (label[k] == number).sum() * 0.488281**2
                assert abs(found - moments(points[:, :2])[0]) < 0.1 * 0.488281 * perimeter(points[:, :2])
