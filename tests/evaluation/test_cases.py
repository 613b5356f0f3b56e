# SPDX-License-Identifier: Apache-2.0
"""The figures of one case: overlap against scikit-learn (test_scores.py), the rest by hand, and every kind of empty."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.evaluation.cases import LESIONS, METRICS, SIZES, CaseScorer
from bundle.pyraseg.transforms.label import UNKNOWN
from bundle.pyraseg.transforms.reader import geometry_of

CLASSES = ["background", "liver", "lesion"]
SHAPE = (10, 12, 8)
GRID = geometry_of(MetaTensor(torch.zeros(1, *SHAPE), affine=np.diag([2.0, 1.0, 5.0, 1.0])))  # 10 cubic mm
PICTURE = geometry_of(MetaTensor(torch.zeros(3, 10, 12)))


def labels(*boxes: tuple[int, tuple[slice, ...]], shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    found = torch.zeros(1, *shape, dtype=torch.uint8)
    for value, box in boxes:
        found[(0, *box)] = value
    return found


BOX = (slice(2, 6), slice(2, 6), slice(2, 4))  # 32 voxels
NEXT = (slice(2, 6), slice(3, 7), slice(2, 4))  # one further along the second axis, 24 in common


def score(prediction, truth, grid=GRID, **options) -> dict[str, dict]:
    rows, _ = CaseScorer(CLASSES, **options).score(prediction, truth, grid)
    return {row.pop("class"): row for row in rows}


def test_a_case_by_hand():
    rows = score(labels((1, NEXT)), labels((1, BOX)), tolerance=0.5, iou_threshold=0.65)
    liver = rows["liver"]
    assert list(liver) == [*METRICS, *SIZES, *LESIONS]
    assert liver["dice"] == liver["precision"] == liver["recall"] == pytest.approx(0.75)
    assert liver["iou"] == pytest.approx(0.6) and liver["thresholded_iou"] == 0
    assert liver["hd95_mm"] == pytest.approx(1.0) and math.isnan(liver["hd95_px"])
    assert 0.3 < liver["surface_dice"] < 1
    assert liver["volume_difference_ml"] == pytest.approx(0) and liver["truth_ml"] == pytest.approx(0.32)
    assert (liver["truth_voxels"], liver["predicted_voxels"]) == (32, 32)
    assert all(math.isnan(liver[name]) for name in LESIONS)


def test_the_threshold_of_the_iou_itself_is_enough():
    rows = score(labels((1, NEXT)), labels((1, BOX)), iou_threshold=0.6)
    assert rows["liver"]["thresholded_iou"] == pytest.approx(0.6)


def test_volumes_have_a_sign():
    less = (slice(2, 6), slice(2, 6), slice(2, 3))
    liver = score(labels((1, less)), labels((1, BOX)))["liver"]
    assert liver["volume_difference_ml"] == pytest.approx(-0.16)
    assert liver["absolute_volume_difference_ml"] == pytest.approx(0.16)


def test_both_empty_has_no_figure():
    liver = score(labels(), labels())["liver"]
    assert all(math.isnan(liver[name]) for name in METRICS)
    assert (liver["truth_voxels"], liver["predicted_voxels"], liver["truth_ml"]) == (0, 0, 0)


def test_truth_empty_is_a_false_alarm():
    liver = score(labels((1, BOX)), labels(), iou_threshold=0.65)["liver"]
    assert [liver[name] for name in ("dice", "iou", "thresholded_iou", "precision", "surface_dice")] == [0] * 5
    assert math.isnan(liver["recall"]) and math.isnan(liver["hd95_mm"])
    assert liver["volume_difference_ml"] == pytest.approx(0.32)


def test_prediction_empty_is_missed():
    liver = score(labels(), labels((1, BOX)), iou_threshold=0.65)["liver"]
    assert [liver[name] for name in ("dice", "iou", "thresholded_iou", "recall", "surface_dice")] == [0] * 5
    assert math.isnan(liver["precision"]) and math.isnan(liver["hd95_mm"])
    assert liver["volume_difference_ml"] == pytest.approx(-0.32)


def test_a_picture_has_pixels_and_neither_mm_nor_ml():
    truth = labels((1, BOX[:2]), shape=(10, 12))
    for prediction in (labels((1, NEXT[:2]), shape=(10, 12)), labels(shape=(10, 12))):
        liver = score(prediction, truth, PICTURE)["liver"]
        missing = [name for name in (*METRICS, *SIZES) if name.endswith(("_mm", "_ml"))]
        assert all(math.isnan(liver[name]) for name in (*missing, "surface_dice"))
    assert score(labels((1, NEXT[:2]), shape=(10, 12)), truth, PICTURE)["liver"]["hd95_px"] == pytest.approx(1.0)


def test_lesions_of_the_classes_that_have_them():
    truth = labels((2, (0, 0, 0)), (2, (5, 5, slice(0, 4))))
    rows, lesions = CaseScorer(CLASSES, ["lesion"]).score(labels((2, (5, 5, 1)), (2, (9, 9, 7))), truth, GRID)
    assert set(lesions) == {"lesion"}
    assert [rows[1][name] for name in LESIONS] == [2, 1, 2, 1]
    assert sorted(lesions["lesion"].sizes) == pytest.approx([0.01, 0.04])


def test_what_nobody_knows_is_of_no_class():
    truth = labels((1, BOX))
    truth[0, :, 6:] = UNKNOWN
    prediction = labels((1, BOX), (1, (slice(None), slice(6, None))), (2, (9, 9, 7)))
    rows = score(prediction, truth, lesion_classes=["lesion"])
    assert rows["liver"]["dice"] == 1 and rows["liver"]["hd95_mm"] == 0
    assert rows["liver"]["volume_difference_ml"] == 0
    assert rows["lesion"]["predicted_lesions"] == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_any_type_of_label_map(dtype):
    prediction = MetaTensor(labels((1, NEXT)).to(dtype))
    assert score(prediction, labels((1, BOX)))["liver"]["dice"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lesion_classes": ["lesions"]}, r"lesion_classes names \['lesions'\], but the classes are \['liver'"),
        ({"tolerance": -1}, "0 mm or more"),
        ({"lesion_overlap": 1.5}, "shares from 0 to 1"),
        ({"iou_threshold": 65}, "shares from 0 to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(PyrasegError, match=message):
        CaseScorer(CLASSES, **options)
