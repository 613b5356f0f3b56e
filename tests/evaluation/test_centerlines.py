# SPDX-License-Identifier: Apache-2.0
"""Agreement along centerlines, against what it is by hand: lines of one pixel are their own centerlines."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.evaluation.cases import CaseScorer
from bundle.pyraseg.evaluation.centerlines import centerline_dice


def lines(*drawn: tuple, shape: tuple[int, ...] = (40, 40)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for where in drawn:
        mask[where] = True
    return mask


TRUTH = lines((10, slice(5, 25)))  # 20 pixels


def test_by_hand():
    found = lines((10, slice(5, 15)), (30, slice(5, 10)))  # 10 of them, and 5 pixels elsewhere
    precision, sensitivity = 10 / 15, 10 / 20
    assert centerline_dice(found, TRUTH) == pytest.approx(2 * precision * sensitivity / (precision + sensitivity))
    assert centerline_dice(found, TRUTH) == pytest.approx(4 / 7)
    assert centerline_dice(TRUTH, found) == pytest.approx(4 / 7)


def test_a_width_is_no_matter_and_a_shift_is():
    wide = binary_dilation(TRUTH, np.ones((3, 3)))
    assert centerline_dice(wide, TRUTH) >= 0.95 and 2 * TRUTH.sum() / (wide.sum() + TRUTH.sum()) < 0.5
    assert centerline_dice(np.roll(wide, 1, axis=0), wide) > 0.95
    assert centerline_dice(np.roll(TRUTH, 1, axis=0), TRUTH) == 0


def test_a_gap_costs_its_length():
    broken = TRUTH & ~lines((slice(None), slice(12, 17)))  # 5 of 20 pixels of the centerline
    assert centerline_dice(broken, TRUTH) == pytest.approx(2 * 0.75 / 1.75)


def test_volumes_and_slices_of_one():
    in_3d = np.repeat(TRUTH[..., None], 1, axis=-1)
    assert centerline_dice(in_3d, in_3d) == 1
    tube = lines((10, 10, slice(5, 25)), shape=(20, 20, 30))
    half = lines((10, 10, slice(5, 15)), shape=(20, 20, 30))
    assert centerline_dice(half, tube) == pytest.approx(2 / 3)


def test_every_kind_of_empty():
    nothing = np.zeros_like(TRUTH)
    assert math.isnan(centerline_dice(nothing, nothing))
    assert centerline_dice(nothing, TRUTH) == centerline_dice(TRUTH, nothing) == 0


def test_it_is_a_figure_of_the_classes_that_are_named():
    truth, found = (torch.from_numpy(mask[None].astype(np.uint8)) for mask in (TRUTH, lines((10, slice(5, 15)))))
    scorer = CaseScorer(["background", "vessel", "nerve"], thin_classes=["vessel"])
    rows, _ = scorer.score(found, truth, None)
    assert rows[0]["cldice"] == pytest.approx(2 / 3) == rows[0]["dice"]
    assert math.isnan(rows[1]["cldice"])
    rows, _ = CaseScorer(["background", "vessel", "nerve"]).score(found, truth, None)
    assert math.isnan(rows[0]["cldice"])
    with pytest.raises(PyrasegError, match=r"thin_classes names \['artery'\]"):
        CaseScorer(["background", "vessel"], thin_classes=["artery"])
