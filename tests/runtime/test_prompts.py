# SPDX-License-Identifier: Apache-2.0
"""Clicks and boxes as maps, against discs that scikit-image draws."""

import numpy as np
import pytest
from skimage.draw import disk

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.runtime.prompts import RADIUS, draw_prompts

SIZE = (40, 30)
LAST = np.linspace(0, 1, 1200).reshape(SIZE)


def drawn_disk(column: float, row: float) -> np.ndarray:
    found = np.zeros(SIZE, np.float32)
    found[disk((column, row), RADIUS + 1e-6, shape=SIZE)] = 1  # scikit-image leaves the circle itself out
    return found


def test_clicks_are_discs_and_the_last_answer_goes_along():
    maps = draw_prompts([(20, 12, True), (1, 28.5, False)], None, SIZE, LAST)
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps[0], drawn_disk(20, 12))
    np.testing.assert_array_equal(maps[1], drawn_disk(1, 28.5))
    np.testing.assert_array_equal(maps[2], 0)
    np.testing.assert_array_equal(maps[3], LAST.astype(np.float32))
    np.testing.assert_array_equal(maps[4], 1)


def test_without_a_prompt_nothing_but_the_last_answer_is_drawn():
    maps = draw_prompts([], None, SIZE, LAST)
    assert not maps[[0, 1, 2, 4]].any() and maps[3].any()


def test_the_later_click_is_right_where_discs_overlap():
    maps = draw_prompts([(20, 12, True), (24, 12, False)], None, SIZE, LAST)
    np.testing.assert_array_equal(maps[1], drawn_disk(24, 12))
    np.testing.assert_array_equal(maps[0], drawn_disk(20, 12) * (1 - drawn_disk(24, 12)))
    turned = draw_prompts([(20, 12, True), (24, 12, False), (20, 12, True)], None, SIZE, LAST)
    np.testing.assert_array_equal(turned[0], drawn_disk(20, 12))


def test_a_repeated_click_changes_nothing():
    once, twice = (draw_prompts([(7, 7, True)] * count, None, SIZE, LAST) for count in (1, 2))
    np.testing.assert_array_equal(once, twice)


@pytest.mark.parametrize("corners", [(3, 5, 10, 20), (10, 20, 3, 5), (10, 5, 3, 20)])
def test_a_box_has_any_two_opposite_corners(corners):
    maps = draw_prompts([], corners, SIZE, LAST)
    expected = np.zeros(SIZE)
    expected[3:11, 5:21] = 1
    np.testing.assert_array_equal(maps[2], expected)
    assert maps[4].all()


def test_a_box_may_reach_over_the_border():
    assert draw_prompts([], (-9, -9, 99, 99), SIZE, LAST)[2].all()


@pytest.mark.parametrize("click", [(-1, 3), (39.6, 3), (4, 30), (4, -0.6), (np.nan, 4)])
def test_a_click_outside_the_image_is_refused(click):
    with pytest.raises(PyrasegError, match="outside the image of 40 x 30 pixels"):
        draw_prompts([(*click, True)], None, SIZE, LAST)


def test_a_box_beside_the_image_and_an_answer_of_another_size_are_refused():
    with pytest.raises(PyrasegError, match="holds no pixel of the image of 40 x 30"):
        draw_prompts([], (50, 3, 60, 9), SIZE, LAST)
    with pytest.raises(PyrasegError, match=r"the size \(30, 40\), the image of \(40, 30\)"):
        draw_prompts([], None, SIZE, LAST.T)
