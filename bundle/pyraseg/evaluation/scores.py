# SPDX-License-Identifier: Apache-2.0
"""Overlap of predicted and true label maps, case by case."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor


def count_overlap(prediction: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Count true positives, false positives and false negatives of every foreground class over a whole case.

    Args:
        prediction: class indices of any shape.
        truth: class indices of the same shape.
        classes: number of classes, background included.

    Returns:
        Tensor (classes - 1, 3) of int64.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} differ in shape.")
    pairs = truth.reshape(-1).long() * classes + prediction.reshape(-1).long()
    confusion = torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    hits = confusion.diagonal()
    return torch.stack([hits, confusion.sum(dim=0) - hits, confusion.sum(dim=1) - hits], dim=1)[1:]


@dataclass(frozen=True)
class ClassScores:
    """One class over all cases.

    `dice` and `iou` are means over the cases whose truth holds the class, NaN where none does. Cases without the class
    are counted apart: `absent` of them, in `false_alarms` of which some voxel was predicted as the class.
    """

    name: str
    dice: float
    iou: float
    cases: int
    absent: int
    false_alarms: int


def summarise(counts: Tensor, class_names: Sequence[str]) -> list[ClassScores]:
    """Return the scores of every foreground class from counts (cases, classes - 1, 3) as `count_overlap` gives them."""
    hits, false_positives, false_negatives = counts.double().unbind(dim=-1)
    there = hits + false_negatives > 0
    dice = 2 * hits / (2 * hits + false_positives + false_negatives)
    iou = hits / (hits + false_positives + false_negatives)
    return [
        ClassScores(
            name=name,
            dice=dice[there[:, k], k].mean().item(),
            iou=iou[there[:, k], k].mean().item(),
            cases=int(there[:, k].sum()),
            absent=int((~there[:, k]).sum()),
            false_alarms=int((false_positives[:, k][~there[:, k]] > 0).sum()),
        )
        for k, name in enumerate(class_names[1:])
    ]


def mean_dice(scores: Sequence[ClassScores]) -> float:
    """Return the mean Dice of the classes that any case holds, NaN where none does."""
    return torch.tensor([score.dice for score in scores]).nanmean().item()


class CaseOverlap(CumulativeIterationMetric):
    """Metric for `IgniteMetricHandler`: gathers the counts of every case and aggregates them to the mean Dice.

    With `save_details` the handler puts the counts, (cases, classes - 1, 3), into the engine's `metric_details`.

    Args:
        class_names: names of all classes, background first.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = list(class_names)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs) -> Tensor:
        return torch.stack([count_overlap(p, t, len(self.class_names)) for p, t in zip(y_pred, y, strict=True)])

    def aggregate(self) -> Tensor:
        return torch.tensor(mean_dice(summarise(self.get_buffer(), self.class_names)))
