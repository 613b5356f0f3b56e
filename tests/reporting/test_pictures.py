# SPDX-License-Identifier: Apache-2.0
"""The views of cases: which slices, how large, at window, upright, with what was not labeled left out."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from bundle.pyraseg.reporting.pictures import SIDE, draw_views, rank_slices
from bundle.pyraseg.transforms.label import UNKNOWN
from tests.helpers.evaluations import evaluate, photograph, volume


def pixels(view: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(view["image"]))).convert("L")).astype(float)


def bounds(path: str) -> list[float]:
    """Return the smallest x and y and the largest x and y of a path."""
    points = np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", path), float)
    return [*points.min(axis=0), *points.max(axis=0)]


def views_of(case, *, most: int = 24, room: int = 10**6, windows=("soft_tissue",)) -> dict:
    return draw_views(case.image, case.prediction, case.truth, windows=windows, most=most, room=room)


def test_the_worst_slice_comes_first_and_the_others_spread():
    truth, prediction = np.zeros((4, 4, 20), int), np.zeros((4, 4, 20), int)
    truth[1:3, 1:3, 3:16] = 1
    prediction[1:3, 1:3, 3:16] = 1
    prediction[:, :, 5] = 1
    order = rank_slices(prediction, truth)
    assert order[:3] == [5, 15, 10]
    assert sorted(order) == list(range(3, 16))  # slices without truth or prediction tell nothing


def test_a_case_without_anything_shows_its_middle():
    assert rank_slices(np.zeros((4, 4, 9)), np.zeros((4, 4, 9))) == [4]


def test_pictures_are_undistorted_and_outlines_lie_on_them():
    """Pixels are 1 x 2 mm, so 24 x 20 of them are higher than wide; they are shown at window."""
    found = views_of(volume("a", shift=3))
    assert found["depth"] == 8 and sorted(view["slice"] for view in found["views"]) == [3, 4, 5, 6, 7]
    view = found["views"][0]
    assert view["size"] == [round(SIDE * 24 / 40), SIDE]
    unit = SIDE / 40  # pixels a mm
    assert bounds(view["truth"][1]) == pytest.approx([4 * unit, 12 * unit, 12 * unit, 24 * unit], abs=0.11)
    assert bounds(view["prediction"][1]) == pytest.approx([7 * unit, 12 * unit, 15 * unit, 24 * unit], abs=0.11)
    image = pixels(view)
    assert image.shape == (20, 24)  # large pixels are not blown up
    assert image[7:11, 5:11].mean() == pytest.approx((110 + 160) / 400 * 255, abs=3)  # HU at center 40, width 400
    assert image[:5].mean() == pytest.approx((-50 + 160) / 400 * 255, abs=3)


def test_a_series_that_runs_the_other_way_is_shown_alike():
    """The same patient stored from right to left and from bottom to top."""
    case = volume("a", shift=3)
    affine = torch.tensor(np.diag([1.0, 2.0, 4.0, 1.0]))
    image, prediction, truth = (part.flip(1, 2) for part in (case.image.as_tensor(), case.prediction, case.truth))
    image = MetaTensor(image, affine=affine)
    turned = draw_views(image, prediction, truth, windows=["soft_tissue"], most=1, room=10**6)["views"][0]
    upright = views_of(case, most=1)["views"][0]
    for kind in ("truth", "prediction"):
        assert bounds(turned[kind][1]) == pytest.approx(bounds(upright[kind][1]), abs=0.11)
    np.testing.assert_allclose(pixels(turned), pixels(upright), atol=12)


def test_a_photograph_is_one_view_without_a_slice():
    found = views_of(photograph("a.png", shift=2), windows=None)
    (view,) = found["views"]
    assert (found["depth"], view["slice"], view["size"]) == (None, None, [SIDE, round(SIDE * 36 / 48)])
    unit = SIDE / 48
    assert bounds(view["truth"][2]) == pytest.approx([10 * unit, 8 * unit, 30 * unit, 20 * unit], abs=0.11)
    assert bounds(view["prediction"][2]) == pytest.approx([10 * unit, 10 * unit, 30 * unit, 22 * unit], abs=0.11)


def test_what_nobody_labeled_is_outlined_in_neither():
    case = volume("a", shift=3)
    case.truth[:, 12:, :, :] = UNKNOWN
    view = views_of(case)["views"][0]
    assert bounds(view["prediction"][1])[2] == pytest.approx(12 * SIDE / 40, abs=0.11)
    assert set(view["truth"]) == set(view["prediction"]) == {1}


def test_room_is_kept_but_for_one_view():
    assert len(views_of(volume("a", shift=3), room=10)["views"]) == 1
    assert len(views_of(volume("a", shift=3), most=2)["views"]) == 2


def test_the_file_names_the_cases_as_the_scores_do(tmp_path):
    folder = evaluate(tmp_path.resolve(), [photograph("b/1.png", shift=1), photograph("a/2.png", shift=2)])
    content = json.loads((folder / "pictures.json").read_text())
    assert [case["case"] for case in content["cases"]] == ["b/1.png", "a/2.png"]
