# SPDX-License-Identifier: Apache-2.0
"""Filled contours against closed forms and an independent test of each pixel."""

import numpy as np
import pytest

from bundle.pyraseg.labels.contours import fill_contours
from tests.helpers.regions import INNER, KEYHOLE, OUTER, REGIONS, SHAPE, moments, perimeter, regular


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("exclusive", [False, True])
def test_area_and_centroid_are_those_of_the_polygon(name: str, exclusive: bool) -> None:
    contours, signs = REGIONS[name]
    mask, odd = fill_contours(contours, SHAPE, exclusive=[exclusive] * len(contours))
    area, *weighted = sum(sign * moments(contour) for contour, sign in zip(contours, signs, strict=True))
    assert odd == 0
    assert abs(mask.sum() - area) < 0.1 * sum(map(perimeter, contours))  # 0.1 pixel along the whole boundary
    assert np.abs(np.argwhere(mask).mean(axis=0) - np.array(weighted) / area).max() < 0.1


def test_a_keyhole_is_a_hole() -> None:
    mask, odd = fill_contours([KEYHOLE], SHAPE)
    assert odd == 0
    assert np.array_equal(mask, fill_contours([OUTER, INNER], SHAPE)[0])


def crossings(points: np.ndarray, contour: np.ndarray) -> np.ndarray:
    """Return how many sides of a contour a ray from each point to the right crosses."""
    count = np.zeros(len(points), int)
    for (r, c), (s, d) in zip(contour, np.roll(contour, -1, axis=0), strict=True):
        between = (r <= points[:, 0]) != (s <= points[:, 0])
        count[between] += c + (points[between, 0] - r) * (d - c) / (s - r) > points[between, 1]
    return count


def test_every_pixel_center_is_judged_rightly() -> None:
    random = np.random.default_rng(5)
    points = np.argwhere(np.ones(SHAPE))
    for _ in range(20):  # polygons that cross themselves and leave the image
        contours = [random.uniform(-20, 120, (random.integers(3, 12), 2)) for _ in range(3)]
        mask, _ = fill_contours(contours, SHAPE, exclusive=[True] * 3)
        odd = sum(crossings(points, contour) for contour in contours) % 2 == 1
        assert np.array_equal(mask.ravel(), odd)


def test_half_pixel_edges_give_exact_areas() -> None:
    square = np.array([[9.5, 19.5], [9.5, 39.5], [29.5, 39.5], [29.5, 19.5]])
    expected = np.zeros(SHAPE, bool)
    expected[10:30, 20:40] = True
    hole = np.array([[14.5, 24.5], [14.5, 30.5], [20.5, 30.5], [20.5, 24.5]])
    assert np.array_equal(fill_contours([square], SHAPE)[0], expected)
    expected[15:21, 25:31] = False
    assert np.array_equal(fill_contours([square, hole], SHAPE)[0], expected)


def test_pixels_on_a_contour_belong_to_it() -> None:
    """Programs that trace the outermost pixels of a mask, a hole's neighbors included, get their mask back."""
    traced = np.array([[10, 20], [10, 39], [29, 39], [29, 20]]) + 1e-9  # as rounding leaves them
    around_hole = np.array([[14, 24], [14, 31], [21, 31], [21, 24]])
    expected = np.zeros(SHAPE, bool)
    expected[10:30, 20:40] = True
    expected[15:21, 25:31] = False
    assert np.array_equal(fill_contours([traced, around_hole], SHAPE)[0], expected)
    channel = np.concatenate([traced[:4], [[18, 20], [18, 24]], around_hole[[3, 2, 1, 0]], [[18, 24], [18, 20]]])
    assert np.array_equal(fill_contours([channel], SHAPE)[0], expected)


def test_contours_that_cross_or_repeat_are_counted() -> None:
    left, right = regular((40.3, 40.4), (20, 20), 60), regular((40.3, 55.4), (20, 20), 60)
    mask, odd = fill_contours([left, right], SHAPE)
    exclusive, not_odd = fill_contours([left, right], SHAPE, exclusive=[True, True])
    assert (odd, not_odd) == (1, 0)
    assert np.array_equal(mask, exclusive)
    assert not mask[40, 47] and mask[40, 30] and mask[40, 65]
    twice, odd = fill_contours([left, left], SHAPE)
    assert odd == 1
    assert np.array_equal(twice, fill_contours([left], SHAPE)[0])
    nothing, odd = fill_contours([left, left], SHAPE, exclusive=[True, True])
    assert (nothing.any(), odd) == (False, 0)


@pytest.mark.parametrize("corners", [1, 2])
def test_too_few_corners_enclose_nothing(corners: int) -> None:
    mask, _ = fill_contours([np.array([[5.5, 5.5], [9.5, 12.2]])[:corners]], SHAPE)
    assert not mask.any()


def test_what_lies_outside_is_cut_off() -> None:
    mask, _ = fill_contours([np.array([[-50.5, -50.5], [-50.5, 300.0], [20.5, 300.0], [20.5, -50.5]])], SHAPE)
    assert mask[:21].all() and not mask[21:].any()
    assert not fill_contours([np.array([[200, 200], [220, 210], [200, 220.0]])], SHAPE)[0].any()
