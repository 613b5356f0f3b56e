# SPDX-License-Identifier: Apache-2.0
"""Every figure of one case: overlap, distances of surfaces, volumes, lesions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import Geometry
from bundle.pyraseg.evaluation.lesions import Detection, detect
from bundle.pyraseg.evaluation.scores import count_overlap, ratios
from bundle.pyraseg.evaluation.surfaces import hausdorff, surface_dice, surface_distances
from bundle.pyraseg.transforms import UNKNOWN

#: Columns of a case and class, in the order of the CSV.
METRICS = (
    "dice",
    "iou",
    "thresholded_iou",
    "precision",
    "recall",
    "hd95_mm",
    "hd95_px",
    "surface_dice",
    "volume_difference_ml",
    "absolute_volume_difference_ml",
)
SIZES = ("truth_voxels", "predicted_voxels", "truth_ml")
LESIONS = ("lesions", "lesions_found", "predicted_lesions", "false_positive_lesions")


@dataclass(frozen=True)
class CaseScorer:
    """Score label maps, class by class, over whole cases on the grid of the input.

    Args:
        class_names: names of all classes, background first.
        lesion_classes: those of which each connected part is a lesion to find.
        tolerance: mm by which a surface may be off in the surface Dice.
        lesion_overlap: share of a lesion that must be predicted, see `detect`.
        iou_threshold: below it the thresholded IoU is 0 (0.65 in ISIC 2018); None for no such figure.
    """

    class_names: Sequence[str]
    lesion_classes: Sequence[str] = ()
    tolerance: float = 2.0
    lesion_overlap: float = 0.1
    iou_threshold: float | None = None

    def __post_init__(self) -> None:
        unknown = set(self.lesion_classes) - set(self.class_names[1:])
        if unknown:
            raise PyrasegError(
                f"lesion_classes names {sorted(unknown)}, but the classes are {list(self.class_names[1:])}."
            )
        if self.tolerance < 0 or not 0 <= self.lesion_overlap <= 1 or not 0 <= (self.iou_threshold or 0) <= 1:
            raise PyrasegError(
                "The tolerance of the surface Dice is 0 mm or more, lesion_overlap and iou_threshold are shares from "
                f"0 to 1: got {self.tolerance}, {self.lesion_overlap} and {self.iou_threshold}."
            )

    def score(
        self, prediction: Tensor, truth: Tensor, geometry: Geometry | None
    ) -> tuple[list[dict], dict[str, Detection]]:
        """Return one row a foreground class, and the lesions of the classes that have them.

        A row holds `METRICS`, `SIZES` and `LESIONS`; what has no meaning is NaN: all metrics where truth and prediction
        both lack the class, distances where one of them does, mm and ml without a patient position.

        Args:
            prediction: class indices, (1, W, H[, D]).
            truth: class indices, the same shape; what is `UNKNOWN` there belongs to no class in either.
            geometry: of the case; None counts in pixels.
        """
        overlaps = count_overlap(prediction, truth, len(self.class_names))
        known = truth != UNKNOWN
        predicted, true = (np.asarray(torch.where(known, labels, 0).cpu())[0] for labels in (prediction, truth))
        rows, lesions = [], {}
        for number, name in enumerate(self.class_names[1:], start=1):
            counts = overlaps[number - 1]
            masks = predicted == number, true == number
            hits, extra, missed = counts.tolist()
            row = dict.fromkeys((*METRICS, *SIZES, *LESIONS), math.nan)
            row |= {"truth_voxels": int(hits + missed), "predicted_voxels": int(hits + extra)}
            row |= dict(zip(("dice", "iou", "precision", "recall"), ratios(counts).tolist(), strict=True))
            if hits + extra + missed:
                if self.iou_threshold is not None:
                    row["thresholded_iou"] = row["iou"] if row["iou"] >= self.iou_threshold else 0.0
                row |= self._surfaces(*masks, geometry)
            row |= _volumes(*masks, geometry)
            if name in self.lesion_classes:
                lesions[name] = detect(*masks, geometry, overlap=self.lesion_overlap)
                row |= {
                    "lesions": len(lesions[name].sizes),
                    "lesions_found": int(lesions[name].found.sum()),
                    "predicted_lesions": lesions[name].predicted,
                    "false_positive_lesions": lesions[name].false_positives,
                }
            rows.append({"class": name, **row})
        return rows, lesions

    def _surfaces(self, predicted: np.ndarray, true: np.ndarray, geometry: Geometry | None) -> dict[str, float]:
        if not (predicted.any() and true.any()):
            return {"surface_dice": 0.0} if geometry is not None else {}
        surfaces = surface_distances(predicted, true, geometry)
        if geometry is None:
            return {"hd95_px": hausdorff(surfaces)}
        return {"hd95_mm": hausdorff(surfaces), "surface_dice": surface_dice(surfaces, self.tolerance)}


def _volumes(predicted: np.ndarray, true: np.ndarray, geometry: Geometry | None) -> dict[str, float]:
    if geometry is None:
        return {}
    found, there = (float(mask.sum(axis=(0, 1)) @ geometry.voxel_volumes / 1000) for mask in (predicted, true))
    if not found and not there:
        return {"truth_ml": 0.0}
    difference = found - there
    return {"truth_ml": there, "volume_difference_ml": difference, "absolute_volume_difference_ml": abs(difference)}
