# SPDX-License-Identifier: Apache-2.0
"""Outlines longer than a decimal string may be in Explicit VR stay decimal strings, in several pieces."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from matplotlib.path import Path as Polygon

from bundle.pyraseg.dicom.geometry import Geometry
from bundle.pyraseg.labels.class_table import ClassTable
from bundle.pyraseg.labels.contours import trace_polygons
from bundle.pyraseg.labels.reading import read_dicom_label
from bundle.pyraseg.labels.rtstruct_writer import write_structure_set
from tests.helpers.dicom_sources import grid_of, make_sources
from tests.helpers.segmented_series import complaints

SIZE = 96


def sieve() -> np.ndarray:
    """Return a plate with a hole at every other pixel: one region with thousands of vertices."""
    mask = np.ones((SIZE, SIZE), bool)
    mask[1:-1:2, 1:-1:2] = False
    return mask


def spiral() -> np.ndarray:
    """Return a band of stairs that winds about itself: one outline, without a hole, of thousands of vertices."""
    rows, columns = np.indices((SIZE, SIZE)) - SIZE / 2
    angle, radius = np.arctan2(rows, columns), np.hypot(rows, columns)
    return ((radius / 4 - angle / (2 * np.pi)) % 1 < 0.5) & (radius < SIZE / 2)


@pytest.mark.slow
@pytest.mark.parametrize("make", [sieve, spiral])
@pytest.mark.parametrize("stack", ["axial", "oblique"])
def test_a_long_outline_stays_what_it_is(tmp_path: Path, make, stack: str) -> None:
    sources = make_sources(stack)
    for source in sources:
        source.Rows = source.Columns = SIZE
        source.ImagePositionPatient = [float(value) - 12345 for value in source.ImagePositionPatient]
    grid = grid_of(sources)
    mask = np.zeros(grid.shape, np.uint8)
    mask[2] = make()
    path = tmp_path / "rt.dcm"
    write_structure_set(path, mask, sources, grid.geometry, ["liver"], frame_numbers=[1] * len(sources),
                        colors=[[1, 2, 3]], algorithm=("a", "1"))  # fmt: skip
    assert complaints(path) == []
    contours = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    assert len(contours) > 1 or make is spiral
    filled = np.zeros((SIZE, SIZE), bool)
    centers = np.argwhere(np.ones_like(filled)) + np.array([0.013, 0.007])  # beside the channels to holes
    for contour in contours:
        assert contour["ContourData"].VR == "DS" and len("\\".join(map(str, contour.ContourData))) <= 65534
        points = np.reshape(contour.ContourData, (-1, 3)).astype(float)
        filled ^= Polygon(in_pixels(points, grid.geometry)).contains_points(centers).reshape(filled.shape)
    np.testing.assert_array_equal(filled, mask[2])
    np.testing.assert_array_equal(read_dicom_label(path, grid, ClassTable(["background", "liver"])), mask)


def in_pixels(points: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return rows and columns by PS3.3 C.7.6.2.1.1, turned about."""
    away = points - geometry.positions[2]
    return np.stack([away @ geometry.column_cosine, away @ geometry.row_cosine], axis=1) / geometry.pixel_spacing


def test_pieces_are_as_few_as_needed() -> None:
    mask = sieve()[:24, :24]
    (whole,) = trace_polygons(mask)
    assert len(trace_polygons(mask, most=len(whole))) == 1
    pieces = trace_polygons(mask, most=len(whole) - 1)
    assert len(pieces) == 2 and all(len(piece) < len(whole) for piece in pieces)
    assert all(len(piece) <= 20 for piece in trace_polygons(mask, most=20))
