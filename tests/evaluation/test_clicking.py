# SPDX-License-Identifier: Apache-2.0
"""Where a simulated user clicks, against a search through all pixels and the components of scikit-image."""

import numpy as np
import pytest
from skimage.measure import label

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.evaluation.clicking import SimulatedUser


def random_masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what is found and what is true, blobs of 30 x 40 pixels."""
    random = np.random.default_rng(seed)
    masks = np.zeros((2, 30, 40), bool)
    for mask in masks:
        for _ in range(4):
            column, row, radius = random.integers(30), random.integers(40), random.uniform(2, 7)
            mask |= np.hypot(*(np.indices(mask.shape) - np.array([column, row])[:, None, None])) < radius
    return masks[0], masks[1]


def expected_click(found: np.ndarray, truth: np.ndarray) -> tuple[int, set[tuple[int, int]], bool]:
    """Return the area of the largest error, its deepest pixels, and whether it was missed, by brute force."""
    errors = []
    for part, is_foreground in ((truth & ~found, True), (found & ~truth, False)):
        labels = label(part, connectivity=2)
        errors += [(np.argwhere(labels == n), is_foreground) for n in range(1, labels.max() + 1)]
    pixels, is_foreground = max(errors, key=lambda error: len(error[0]))
    inside = np.zeros(np.add(truth.shape, 2), bool)
    inside[tuple(pixels.T + 1)] = True
    outside = np.argwhere(~inside) - 1
    depth = np.array([np.hypot(*(outside - pixel).T).min() for pixel in pixels])
    deepest = pixels[np.isclose(depth, depth.max())]
    return len(pixels), {tuple(int(place) for place in pixel) for pixel in deepest}, is_foreground


@pytest.mark.parametrize("seed", range(6))
def test_the_deepest_pixel_of_the_largest_error_is_clicked(seed):
    found, truth = random_masks(seed)
    user = SimulatedUser(truth)
    assert user.click(found)
    ((column, row, is_foreground),) = user.clicks
    _, deepest, missed = expected_click(found, truth)
    assert (column, row) in deepest and is_foreground == missed == truth[int(column), int(row)]


def test_a_right_mask_and_unknown_pixels_are_not_clicked():
    found, truth = random_masks(1)
    user = SimulatedUser(truth)
    assert not user.click(truth) and user.clicks == []
    careful = SimulatedUser(truth, known=found == truth)
    assert not careful.click(found)


def test_a_hand_that_is_not_steady_misses_by_as_much_as_it_is_told():
    found, truth = np.zeros((60, 60), bool), np.zeros((60, 60), bool)
    truth[20:41, 20:41] = True
    user = SimulatedUser(truth, random=np.random.default_rng(0), jitter=(5, 5))
    for _ in range(50):
        user.click(found)
    places = np.array([click[:2] for click in user.clicks])
    np.testing.assert_allclose(np.hypot(*(places - 30).T), 5)
    assert (places.std(axis=0) > 2).all() and all(click[2] for click in user.clicks)
    corner = np.zeros((60, 60), bool)
    corner[:3, :3] = True
    user = SimulatedUser(corner, random=np.random.default_rng(0), jitter=(0, 9))
    for _ in range(50):
        user.click(found)
    places = np.array([click[:2] for click in user.clicks])
    assert places.min() == 0 and np.hypot(*(places - 1).T).max() <= 9


def test_errors_are_drawn_by_their_area_in_training():
    found, truth = np.zeros((60, 60), bool), np.zeros((60, 60), bool)
    truth[5:15, 5:15] = True  # 100 pixels
    found[30:50, 30:45] = True  # 300 pixels
    user = SimulatedUser(truth, random=np.random.default_rng(0), by_area=True)
    for _ in range(400):
        user.click(found)
    share = np.mean([click[2] for click in user.clicks])
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)


def test_prompts_are_all_clicks_and_the_box():
    found, truth = random_masks(2)
    user = SimulatedUser(truth, box=(2, 3, 20, 30))
    last = np.full(truth.shape, 0.5)
    maps = user.prompts(last)
    assert maps[2].sum() == 19 * 28 and maps[4].all() and not maps[:2].any()
    user.click(found)
    assert user.prompts(last)[:2].any()


def test_chance_needs_a_generator():
    with pytest.raises(PyrasegError, match="needs a generator of random numbers"):
        SimulatedUser(np.zeros((3, 3), bool), jitter=(0, 5))
