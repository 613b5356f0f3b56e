# SPDX-License-Identifier: Apache-2.0
"""Outlines against the areas that they enclose, by the shoelace formula and by another rasterizer."""

import re

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

from bundle.pyraseg.figures.overlay import TOLERANCE, outline_paths


def rings(path: str) -> list[np.ndarray]:
    """Return the rings of a path as (x, y)."""
    assert re.fullmatch(r"(M-?[\d.]+ -?[\d.]+(L-?[\d.]+ -?[\d.]+)+Z)+", path)
    return [np.array([point.split() for point in ring.split("L")], float) for ring in re.findall(r"M([^Z]+)Z", path)]


def area(path: str) -> float:
    """Return what the rings enclose; holes run the other way round."""
    x_y = [(ring[:, 0], ring[:, 1]) for ring in rings(path)]
    return abs(sum((x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2 for x, y in x_y))


def test_a_rectangle_lies_on_the_borders_of_its_pixels():
    labels = np.zeros((6, 10), np.uint8)
    labels[1:4, 2:9] = 3
    paths = outline_paths(labels, (10, 6))
    assert list(paths) == [3]
    (ring,) = rings(paths[3])
    assert (ring.min(axis=0), ring.max(axis=0)) == (pytest.approx([2, 1]), pytest.approx([9, 4]))
    assert area(paths[3]) == pytest.approx(21, abs=1)  # the corners are cut


def test_it_is_drawn_in_the_units_of_the_picture():
    labels = np.zeros((6, 10), np.uint8)
    labels[1:4, 2:9] = 1
    (ring,) = rings(outline_paths(labels, (40, 12))[1])
    assert (ring.min(axis=0), ring.max(axis=0)) == (pytest.approx([8, 2]), pytest.approx([36, 8]))


def test_a_mask_at_the_border_is_closed_and_a_hole_is_left_out():
    labels = np.ones((40, 40), np.uint8)
    labels[10:30, 10:30] = 0
    path = outline_paths(labels, (40, 40))[1]
    assert len(rings(path)) == 2
    assert area(path) == pytest.approx(1600 - 400, abs=4)


def test_nothing_has_no_outline():
    assert outline_paths(np.zeros((4, 4), np.uint8), (4, 4)) == {}


@pytest.mark.parametrize("seed", range(5))
def test_filled_again_they_are_the_mask(seed):
    """Pillow fills the rings of a random mask with islands and holes: it differs at the border alone."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(80, 120)), 5)
    mask = noise > np.quantile(noise, 0.6)
    scale = 8
    canvas = np.zeros((80 * scale, 120 * scale), bool)
    for ring in rings(outline_paths(mask.astype(np.uint8), (120 * scale, 80 * scale))[1]):
        filled = Image.new("1", canvas.shape[::-1])
        ImageDraw.Draw(filled).polygon([tuple(point) for point in ring], fill=1)
        canvas ^= np.asarray(filled)  # even-odd: a hole is taken out again
    expected = mask.repeat(scale, axis=0).repeat(scale, axis=1)
    alike = minimum_filter(mask, 3, mode="constant") == maximum_filter(
        mask, 3
    )  # a pixel and its neighbors: not at the border
    inner = alike.repeat(scale, axis=0).repeat(scale, axis=1)
    np.testing.assert_array_equal(canvas[inner], expected[inner])
    assert (canvas & expected).sum() / (canvas | expected).sum() > 0.97


def test_they_are_as_short_as_can_be_seen():
    rows, columns = np.mgrid[:200, :200]
    disc = ((rows - 100) ** 2 + (columns - 100) ** 2 < 80**2).astype(np.uint8)
    path = outline_paths(disc, (200, 200))[1]
    (ring,) = rings(path)
    assert len(ring) < 640 / 3  # the disc has 640 corners
    assert np.abs(np.hypot(*(ring - 100.5).T) - 80).max() < 1 + TOLERANCE
