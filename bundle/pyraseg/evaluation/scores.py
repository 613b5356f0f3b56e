# SPDX-License-Identifier: Apache-2.0
"""Overlap of predicted and true label maps, case by case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from bundle.pyraseg.core import Structures, values_of
from bundle.pyraseg.labels import annotated_classes
from bundle.pyraseg.transforms import UNKNOWN

#: Voxels that are counted at a time: of each, 8 bytes are made several times.
BLOCK = 1 << 22


def count_overlap(prediction: Tensor, truth: Tensor, classes: int, *, overlapping: bool = False) -> Tensor:
    """Count true positives, false positives and false negatives of every foreground class over a whole case.

    Args:
        prediction: class indices of any shape.
        truth: class indices of the same shape; what is `UNKNOWN` there counts nowhere.
        classes: number of classes, background included.
        overlapping: they are regions, and the values sets of them, see `core.Structures`.

    Returns:
        Tensor (classes - 1, 3) of int64.

    >>> count_overlap(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2]), classes=3)
    tensor([[1, 1, 0],
            [1, 0, 1]])
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} differ in shape.")
    values = 2 ** (classes - 1) if overlapping else classes
    confusion = torch.zeros(values**2, dtype=torch.int64, device=truth.device)
    planes = max(1, BLOCK // max(1, truth[..., :1].numel()))
    for true, found in zip(truth.split(planes, dim=-1), prediction.split(planes, dim=-1), strict=True):
        known = true != UNKNOWN
        pairs = true[known].long() * values + found[known].long()
        confusion += torch.bincount(pairs, minlength=values**2)
    confusion = confusion.reshape(values, values)
    counts = []
    for number in range(1, classes):
        there = values_of(number, classes - 1, overlapping=overlapping)
        hits = confusion[there][:, there].sum()
        counts.append(torch.stack([hits, confusion[:, there].sum() - hits, confusion[there].sum() - hits]))
    return torch.stack(counts)


def ratios(counts: Tensor) -> Tensor:
    """Return Dice, IoU, precision and recall, (..., 4) float64, from counts (..., 3); 0 / 0 is NaN."""
    hits, extra, missed = counts.double().unbind(dim=-1)
    return torch.stack(
        [
            2 * hits / (2 * hits + extra + missed),
            hits / (hits + extra + missed),
            hits / (hits + extra),
            hits / (hits + missed),
        ],
        dim=-1,
    )


@dataclass(frozen=True)
class ClassScores:
    """One class over all cases.

    The ratios are means over the `cases` whose truth holds the class, NaN where there are none. (Precision is a mean
    over those of them in which the class was predicted at all.) Cases without the class are counted apart: `absent` of
    them, in `false_alarms` of which some voxel was predicted as the class. A case that was not annotated for the class
    counts nowhere.
    """

    name: str
    dice: float
    iou: float
    precision: float
    recall: float
    cases: int
    absent: int
    false_alarms: int


def summarize(counts: Tensor, class_names: Sequence[str]) -> list[ClassScores]:
    """Return the scores of every foreground class.

    Args:
        counts: (cases, classes - 1, 3) as `count_overlap` gives them; NaN where a case was not annotated for a class.
        class_names: background first.
    """
    there = (counts[..., 0] + counts[..., 2]) > 0
    absent = (counts[..., 0] + counts[..., 2]) == 0
    predicted = (counts[..., 0] + counts[..., 1]) > 0
    return [
        ClassScores(
            name,
            *ratios(counts[there[:, k], k]).nanmean(dim=0).tolist(),
            cases=int(there[:, k].sum()),
            absent=int(absent[:, k].sum()),
            false_alarms=int((predicted & absent)[:, k].sum()),
        )
        for k, name in enumerate(class_names[1:])
    ]


def mean_dice(scores: Sequence[ClassScores]) -> float:
    """Return the mean Dice of the classes that any case holds (and was annotated for), NaN where none does."""
    return torch.tensor([score.dice for score in scores]).nanmean().item()


class CaseOverlap(CumulativeIterationMetric):
    """Metric for `IgniteMetricHandler`: gathers the counts of every case and aggregates them to the mean Dice.

    With `save_details` the handler puts the counts, (cases, classes - 1, 3), into the engine's `metric_details`. They
    are NaN for a class that a case was not annotated for.

    Args:
        class_names: names of all classes, background first.
        cases: items of the data list, in the order of the evaluation; what several processes gather beyond them, in
            order, is a repetition and dropped.
        regions: the classes of each region where these are predicted, see `core.Structures`; they take the place of the
            classes, and predictions and truth are label values of them.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        cases: Sequence[Mapping[str, Any]],
        regions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.structures = Structures(class_names, regions)
        annotated = [self.structures.annotated(annotated_classes(case, class_names))[1:] for case in cases]
        none = torch.zeros(0, len(self.structures.names) - 1)
        self.unscored = ~torch.from_numpy(np.stack(annotated)) if annotated else none

    def _compute_tensor(self, y_pred: Tensor, y: Tensor, **kwargs) -> Tensor:
        count, overlapping = len(self.structures.names), self.structures.overlapping
        pairs = zip(y_pred, y, strict=True)
        return torch.stack([count_overlap(*pair, count, overlapping=overlapping) for pair in pairs])

    def get_buffer(self) -> Tensor:
        counts = super().get_buffer()[: len(self.unscored)]
        if not self.unscored.any():
            return counts
        return counts.double().masked_fill(self.unscored.to(counts.device)[..., None], torch.nan)

    def aggregate(self) -> Tensor:
        return torch.tensor(mean_dice(summarize(self.get_buffer(), self.structures.names)))
