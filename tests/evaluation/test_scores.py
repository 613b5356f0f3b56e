# SPDX-License-Identifier: Apache-2.0
"""Scores against scikit-learn and against cases worked by hand."""

import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score
from torch import nn
from torch.utils.data import DataLoader

from bundle.pyraseg.evaluation.scores import CaseOverlap, count_overlap, mean_dice, ratios, summarize
from bundle.pyraseg.transforms.label import UNKNOWN

CLASSES = ["background", "liver", "lesion", "spleen"]


def random_maps(seed: int, shape: tuple[int, ...] = (1, 9, 8, 7)) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, len(CLASSES), shape)
    prediction = np.where(random.random(shape) < 0.6, truth, random.integers(0, len(CLASSES), shape))
    return torch.from_numpy(prediction), torch.from_numpy(truth)


def maps(*pairs: tuple[list[int], list[int]]) -> torch.Tensor:
    """Return the counts of cases given as (prediction, truth)."""
    return torch.stack([count_overlap(torch.tensor(p), torch.tensor(t), len(CLASSES)) for p, t in pairs])


# --- against scikit-learn ---


@pytest.mark.parametrize("seed", range(3))
def test_ratios_of_a_case_are_those_of_scikit_learn(seed):
    prediction, truth = random_maps(seed)
    found = ratios(count_overlap(prediction, truth, len(CLASSES)))
    for column, score in enumerate((f1_score, jaccard_score, precision_score, recall_score)):
        expected = score(truth.ravel(), prediction.ravel(), labels=[1, 2, 3], average=None)
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-12)


def test_unknown_pixels_count_as_if_they_were_cut_out():
    prediction, truth = random_maps(0)
    unknown = torch.from_numpy(np.random.default_rng(1).random(truth.shape) < 0.3)
    expected = count_overlap(prediction[~unknown], truth[~unknown], len(CLASSES))
    assert torch.equal(count_overlap(prediction, truth.masked_fill(unknown, UNKNOWN), len(CLASSES)), expected)


def test_means_are_over_cases_not_over_voxels():
    cases = [random_maps(seed, (1, size, size)) for seed, size in enumerate((4, 9, 30))]
    scores = summarize(torch.stack([count_overlap(*case, len(CLASSES)) for case in cases]), CLASSES)
    assert [score.name for score in scores] == CLASSES[1:]
    for index, score in enumerate(scores, start=1):
        for name, function in (
            ("dice", f1_score),
            ("iou", jaccard_score),
            ("precision", precision_score),
            ("recall", recall_score),
        ):
            each = [function((t == index).ravel(), (p == index).ravel()) for p, t in cases]
            assert getattr(score, name) == pytest.approx(np.mean(each))
    assert mean_dice(scores) == pytest.approx(np.mean([score.dice for score in scores]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_counts_do_not_overflow_or_depend_on_the_type(dtype):
    prediction, truth = random_maps(0, (1, 40, 40, 40))
    expected = count_overlap(prediction, truth, len(CLASSES))
    assert expected.dtype == torch.int64 and expected.sum() > 255
    assert torch.equal(count_overlap(prediction.to(dtype), truth.to(dtype), len(CLASSES)), expected)


def test_maps_of_unequal_shape_are_refused():
    with pytest.raises(ValueError, match=r"prediction \(2, 3\) and truth \(3, 2\) differ in shape"):
        count_overlap(torch.zeros(2, 3), torch.zeros(3, 2), 2)


# --- worked by hand ---


def test_a_case_by_hand():
    counts = maps(([0, 1, 1, 1, 0, 2, 0, 0], [0, 1, 1, 0, 1, 0, 0, 0]))
    assert counts.tolist() == [[[2, 1, 1], [0, 1, 0], [0, 0, 0]]]
    assert ratios(counts[0, 0]).tolist() == pytest.approx([4 / 6, 2 / 4, 2 / 3, 2 / 3])


def test_a_case_with_empty_truth_is_a_false_alarm_and_no_part_of_the_mean():
    liver, lesion, _ = summarize(maps(([1, 1, 2, 0], [1, 1, 0, 0]), ([1, 0, 2, 0], [1, 1, 2, 0])), CLASSES)
    assert (liver.cases, liver.absent, liver.false_alarms) == (2, 0, 0)
    assert liver.dice == pytest.approx((1 + 2 / 3) / 2)
    assert (lesion.cases, lesion.absent, lesion.false_alarms) == (1, 1, 1)
    assert lesion.dice == lesion.precision == 1.0  # of the second case alone
    assert ratios(maps(([2], [0]))[0, 1]).tolist()[:3] == [0, 0, 0]


def test_a_case_with_neither_is_no_false_alarm():
    _, lesion, _ = summarize(maps(([0, 0, 0], [0, 0, 0]), ([0, 2, 2], [0, 2, 2])), CLASSES)
    assert (lesion.dice, lesion.cases, lesion.absent, lesion.false_alarms) == (1.0, 1, 1, 0)
    assert torch.isnan(ratios(maps(([0], [0]))[0])).all()


def test_a_class_that_was_missed_counts_with_zero_but_has_no_precision():
    _, lesion, _ = summarize(maps(([0, 0, 0], [0, 2, 2]), ([0, 2, 2], [0, 2, 0])), CLASSES)
    assert (lesion.dice, lesion.iou, lesion.recall) == pytest.approx(((0 + 2 / 3) / 2, (0 + 1 / 2) / 2, (0 + 1) / 2))
    assert lesion.precision == 0.5  # of the second case: the first has no predicted voxel


def test_a_class_that_no_case_holds_is_nan_and_no_part_of_the_mean_over_classes():
    scores = summarize(maps(([0, 1, 1], [0, 1, 1]), ([3, 1, 0], [0, 1, 1])), CLASSES)
    spleen = scores[2]
    assert np.isnan([spleen.dice, spleen.iou, spleen.precision, spleen.recall]).all()
    assert (spleen.cases, spleen.absent, spleen.false_alarms) == (0, 2, 1)
    assert mean_dice(scores) == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(mean_dice(scores[1:]))


# --- inside an evaluator ---


class AsIs(nn.Module):
    """Hand on the image, which is a prediction."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


def evaluator(cases: list[dict[str, torch.Tensor]]) -> SupervisedEvaluator:
    metric = IgniteMetricHandler(
        metric_fn=CaseOverlap(CLASSES, cases=cases), output_transform=from_engine(["pred", "label"]), save_details=True
    )
    return SupervisedEvaluator(
        device="cpu", val_data_loader=DataLoader(cases), network=AsIs(), key_val_metric={"val_mean_dice": metric}
    )


def test_metric_gathers_cases_of_unequal_size_in_order_and_starts_anew_each_time():
    pairs = [random_maps(seed, (1, 3 + seed, 5, 2)) for seed in range(4)]
    engine = evaluator([{"image": prediction.float(), "label": truth} for prediction, truth in pairs])
    expected = torch.stack([count_overlap(*pair, len(CLASSES)) for pair in pairs])
    for epoch in (1, 2):
        engine.run(epoch)
        assert torch.equal(engine.state.metric_details["val_mean_dice"].long(), expected)
        dice = mean_dice(summarize(expected, CLASSES))
        assert engine.state.metrics["val_mean_dice"] == pytest.approx(dice)
        assert engine.state.best_metric == pytest.approx(dice)
    assert engine.state.best_metric_epoch == 1


def test_a_class_that_no_case_was_annotated_for_has_no_dice_and_others_count_where_they_were():
    pairs = [random_maps(seed, (1, 8, 8, 2)) for seed in range(3)]
    truths = [truth.clone() for _, truth in pairs]
    truths[0][truths[0] != 1] = 0
    truths[1][truths[1] != 2] = 0
    truths[2][truths[2] != 1] = 0
    annotated = [["liver"], ["lesion"], ["liver"]]
    cases = [
        {"image": prediction.float(), "label": truth} for (prediction, _), truth in zip(pairs, truths, strict=True)
    ]
    metric = CaseOverlap(CLASSES, cases=[{"image": "i", "annotated": names} for names in annotated])
    handler = IgniteMetricHandler(metric_fn=metric, output_transform=from_engine(["pred", "label"]), save_details=True)
    engine = SupervisedEvaluator(
        device="cpu", val_data_loader=DataLoader(cases), network=AsIs(), key_val_metric={"dice": handler}
    )
    engine.run()
    liver, lesion, last = summarize(engine.state.metric_details["dice"], CLASSES)
    by_hand = {
        k: [
            2.0 * ((p == k) & (t == k)).sum().item() / ((p == k).sum() + (t == k).sum()).item()
            for (p, _), t, names in zip(pairs, truths, annotated, strict=True)
            if CLASSES[k] in names
        ]
        for k in (1, 2)
    }
    assert (liver.dice, lesion.dice) == pytest.approx((np.mean(by_hand[1]), by_hand[2][0]))
    assert (liver.cases, liver.absent, liver.false_alarms) == (2, 0, 0)
    assert (lesion.cases, lesion.absent, lesion.false_alarms) == (1, 0, 0)
    assert np.isnan(last.dice) and (last.cases, last.absent, last.false_alarms) == (0, 0, 0)
    assert engine.state.metrics["dice"] == pytest.approx((np.mean(by_hand[1]) + by_hand[2][0]) / 2)
