# SPDX-License-Identifier: Apache-2.0
"""Outlines of masks, filled again by scikit-image and measured by the shoelace formula."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import disk
from skimage.measure import grid_points_in_poly

from bundle.pyraseg.labels.contours import trace_polygons

RNG = np.random.default_rng(0)


def fill(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels whose centers are inside an odd number of polygons."""
    inside = np.zeros(shape, int)
    for polygon in polygons:
        inside += grid_points_in_poly(shape, polygon)
    return inside % 2 == 1


def area(polygon: np.ndarray) -> float:
    row, column = polygon.T
    return abs(np.dot(row, np.roll(column, 1)) - np.dot(column, np.roll(row, 1))) / 2


def blobs(threshold: float) -> np.ndarray:
    noise = ndimage.gaussian_filter(RNG.standard_normal((60, 45)), 2.0)
    return noise > threshold * noise.std()


def rings() -> np.ndarray:
    """Return a disc with two holes, one of which holds an island with a hole of its own."""
    mask = np.zeros((64, 80), bool)
    for center, radii in (((32, 40), [28]), ((30, 28), [11, 6, 2]), ((38, 55), [7])):
        for radius in radii:
            mask[disk(center, radius, shape=mask.shape)] ^= True
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        rings(),
        np.ones((5, 7), bool),  # touches every border
        np.eye(6, dtype=bool),  # touches itself by corners alone
        np.pad(np.zeros((3, 4), bool), 1, constant_values=True),
        ~np.pad(np.eye(5, dtype=bool), 1),  # holes that touch each other by corners
        *(blobs(threshold) for threshold in (-0.8, -0.3, 0, 0.5)),
        RNG.random((40, 40)) > 0.5,
        RNG.random((40, 40)) > 0.2,
    ],
)
def test_filled_again_it_is_the_mask(mask):
    polygons = trace_polygons(mask)
    assert len(polygons) == ndimage.label(mask)[1]  # one closed contour a region, whatever its holes
    assert np.array_equal(fill(polygons, mask.shape), mask)


def test_nothing_has_no_outline():
    assert trace_polygons(np.zeros((4, 4), bool)) == []


def test_the_half_pixel_belongs_to_the_outline():
    mask = np.zeros((6, 8), bool)
    mask[2:4, 3:6] = True
    (polygon,) = trace_polygons(mask)
    assert polygon.min(axis=0).tolist() == [1.5, 2.5] and polygon.max(axis=0).tolist() == [3.5, 5.5]
    assert area(polygon) == 6 - 4 / 8  # marching squares cuts an eighth of a pixel off each of the four corners
    assert len(polygon) == 8


def test_a_hole_takes_its_area_away():
    mask = np.ones((9, 9), bool)
    mask[3:6, 3:6] = False
    (polygon,) = trace_polygons(mask)
    assert area(polygon) == (81 - 4 / 8) - (9 - 4 / 8)


def test_areas_are_those_of_the_pixels():
    mask = rings()
    assert sum(map(area, trace_polygons(mask))) == pytest.approx(mask.sum(), rel=0.005)


def test_no_vertex_is_needless():
    for polygon in trace_polygons(rings()):
        before, after = polygon - np.roll(polygon, 1, axis=0), np.roll(polygon, -1, axis=0) - polygon
        straight = (before[:, 0] * after[:, 1] == before[:, 1] * after[:, 0]) & ((before * after).sum(axis=1) > 0)
        assert not straight.any()
