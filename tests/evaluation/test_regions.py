# SPDX-License-Identifier: Apache-2.0
"""Figures of overlapping regions: those of MONAI for one channel a region, and of each region as a class of its own."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import DiceMetric, MeanIoU
from scipy import ndimage

from bundle.pyraseg.core import PyrasegError, Structures
from bundle.pyraseg.evaluation import (
    BoundaryCalibration,
    CaseOverlap,
    CaseScorer,
    TemperatureFit,
    count_overlap,
    mean_dice,
    ratios,
    summarize,
)
from bundle.pyraseg.transforms import UNKNOWN, geometry_of

CLASSES = ["background", "edema", "core", "enhancing"]
REGIONS = {"whole": ["edema", "core", "enhancing"], "core": ["core", "enhancing"], "enhancing": ["enhancing"]}
MEMBERS = [[1, 2, 3], [2, 3], [3]]
SHAPE = (24, 20, 10)
IMAGE = MetaTensor(torch.zeros(1, *SHAPE), affine=np.diag([2.0, 1.0, 5.0, 1.0]))
TABLE = torch.from_numpy(Structures(CLASSES, REGIONS).table)


def label(seed: int, *, unknown: bool = False) -> torch.Tensor:
    """Return classes (1, W, H, D) in nested shells, as a tumor has them."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), (3, 3, 1.5))
    classes = np.digitize(noise, np.quantile(noise, [0.6, 0.8, 0.93])).astype(np.uint8)
    if unknown:
        classes[:4, :5] = UNKNOWN
    return torch.from_numpy(classes)[None]


def channels(classes: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.isin(classes[0], torch.tensor(members)) for members in MEMBERS]).float()


def any_sets(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predicted values (1, W, H, D) of regions that know nothing of each other, and their channels."""
    drawn = torch.stack([label(seed + place)[0] > 1 for place in range(3)])
    return sum(2**place * part.long() for place, part in enumerate(drawn)).to(torch.uint8)[None], drawn.float()


def test_dice_and_iou_are_those_of_monai():
    cases = []
    for seed in range(4):
        truth, (prediction, predicted) = label(seed), any_sets(10 * seed + 100)
        counts = count_overlap(prediction, TABLE[truth.long()], 4, overlapping=True)
        cases.append(counts)
        batch = predicted[None], channels(truth)[None]
        for metric, column in ((DiceMetric(reduction="none"), 0), (MeanIoU(reduction="none"), 1)):
            torch.testing.assert_close(ratios(counts)[:, column], metric(*batch)[0].double(), rtol=1e-6, atol=0)
    metric = CaseOverlap(CLASSES, cases=[{"image": str(k)} for k in range(4)], regions=REGIONS)
    for seed in range(4):
        metric([any_sets(10 * seed + 100)[0]], [TABLE[label(seed).long()]])
    assert torch.equal(metric.get_buffer(), torch.stack(cases))
    assert metric.aggregate().item() == pytest.approx(
        mean_dice(summarize(torch.stack(cases), ["background", *REGIONS]))
    )


def test_each_region_is_scored_as_a_class_of_its_own_would_be():
    truth, (prediction, predicted) = label(1, unknown=True), any_sets(200)
    geometry = geometry_of(IMAGE)
    scorer = CaseScorer(CLASSES, lesion_classes=["enhancing"], regions=REGIONS)
    rows, lesions = scorer.score(prediction, TABLE[truth.long()], geometry)
    assert [row["class"] for row in rows] == list(REGIONS) and list(lesions) == ["enhancing"]
    for row, members, found in zip(rows, MEMBERS, predicted, strict=True):
        alone = torch.where(truth == UNKNOWN, UNKNOWN, torch.isin(truth, torch.tensor(members)).byte())
        lesion_classes = ["x"] if row["class"] == "enhancing" else []
        own = CaseScorer(["background", "x"], lesion_classes)
        (expected,), _ = own.score(found.byte()[None], alone.byte(), geometry)
        for name, value in expected.items():
            if name != "class":
                assert row[name] == pytest.approx(value, nan_ok=True), name
        assert row["dice"] < 1 and not math.isnan(row["surface_dice"])


def test_a_region_counts_where_all_its_classes_were_annotated():
    case = {"image": "a", "annotated": ["core", "enhancing"]}
    truth, (prediction, _) = label(2), any_sets(300)
    told = np.array([True, False, True, True])
    rows, _ = CaseScorer(CLASSES, regions=REGIONS).score(prediction, TABLE[truth.long()], None, told)
    assert [row["class"] for row in rows] == ["core", "enhancing"]
    metric = CaseOverlap(CLASSES, cases=[case], regions=REGIONS)
    metric([prediction], [TABLE[truth.long()]])
    assert metric.get_buffer().isnan().all(dim=2).tolist() == [[True, False, False]]


def test_calibration_is_that_of_each_region_alone():
    truth, (prediction, predicted) = label(3, unknown=True), any_sets(400)
    probabilities = predicted * 0.6 + 0.2 + 0.1 * torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    together = BoundaryCalibration(CLASSES, margin=3, regions=REGIONS)
    together.start()
    together.add(probabilities, prediction, TABLE[truth.long()], geometry_of(IMAGE))
    found = together.summary()["uncalibrated"]
    assert list(found) == list(REGIONS)
    for name, members, mask, probability in zip(REGIONS, MEMBERS, predicted, probabilities, strict=True):
        alone = BoundaryCalibration(["background", "x"], margin=3)
        alone.start()
        true = torch.where(truth == UNKNOWN, UNKNOWN, torch.isin(truth, torch.tensor(members)).byte()).byte()
        pair = torch.stack([1 - probability, probability])
        alone.add(pair, mask.byte()[None], true, geometry_of(IMAGE))
        assert found[name] == alone.summary()["uncalibrated"]["x"]


def test_what_regions_do_not_have_is_refused():
    with pytest.raises(PyrasegError, match="this config has `regions`"):
        TemperatureFit("model.pt", class_names=CLASSES, margin=3, regions=REGIONS)
    with pytest.raises(PyrasegError, match=r"names \['edema'\], but the regions are"):
        CaseScorer(CLASSES, lesion_classes=["edema"], regions=REGIONS)
