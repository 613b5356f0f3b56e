# SPDX-License-Identifier: Apache-2.0
"""Every figure of one case: overlap, distances of surfaces, volumes, lesions found and lesions made up."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from skimage.measure import label
from torch import Tensor

from bundle.pyraseg.core import PyrasegError, Structures
from bundle.pyraseg.dicom import Geometry
from bundle.pyraseg.evaluation.centerlines import centerline_dice
from bundle.pyraseg.evaluation.scores import count_overlap, ratios
from bundle.pyraseg.evaluation.surfaces import hausdorff, surface_dice, surface_distances
from bundle.pyraseg.transforms import UNKNOWN


@dataclass(frozen=True)
class Detection:
    """The lesions of one class in one case.

    Args:
        sizes: of each true lesion, in ml with a patient position, in pixels without, (L,).
        covered: share of each that was predicted as the class, (L,).
        found: whether that is enough, (L,).
        predicted: number of predicted lesions.
        false_positives: how many of them hardly meet a true one.
    """

    sizes: np.ndarray
    covered: np.ndarray
    found: np.ndarray
    predicted: int
    false_positives: int


def detect(prediction: np.ndarray, truth: np.ndarray, geometry: Geometry | None, *, overlap: float) -> Detection:
    """Match predicted and true lesions, which are what hangs together in a mask, by corners as well.

    A true lesion is found when at least the share `overlap` of its voxels was predicted as the class, by whatever
    predicted lesions; a predicted lesion is a false positive when less than that share of it is true. With an overlap
    of 0 one voxel is enough.

    Args:
        prediction: boolean mask, (W, H[, D]).
        truth: the same.
        geometry: of the volume; None counts in pixels.
        overlap: share, 0 to 1.
    """
    volumes = np.broadcast_to(1.0 if geometry is None else geometry.voxel_volumes / 1000, truth.shape)
    lesions, guesses = (label(mask, connectivity=truth.ndim) for mask in (truth, prediction))
    covered, true = _shares(lesions, prediction), _shares(guesses, truth)
    sizes = np.bincount(lesions[truth] - 1, weights=volumes[truth], minlength=len(covered))
    found = (covered > 0) & (covered >= overlap)
    return Detection(sizes, covered, found, len(true), int(((true == 0) | (true < overlap)).sum()))


def _shares(lesions: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the share of the voxels of each numbered lesion that lies in a mask."""
    voxels = np.bincount(lesions.ravel())[1:]
    return np.bincount(lesions[mask], minlength=len(voxels) + 1)[1:] / voxels


#: Columns of a case and class, in the order of the CSV.
METRICS = (
    "dice",
    "iou",
    "thresholded_iou",
    "cldice",
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
        regions: the classes of each region where these are predicted, see `core.Structures`; they take the place of the
            classes, in `lesion_classes` too, and label maps hold label values of them.
        thin_classes: those that are also compared along their centerlines, see `centerline_dice`.
    """

    class_names: Sequence[str]
    lesion_classes: Sequence[str] = ()
    tolerance: float = 2.0
    lesion_overlap: float = 0.1
    iou_threshold: float | None = None
    regions: Mapping[str, Sequence[str]] | None = None
    thin_classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for option in ("lesion_classes", "thin_classes"):
            unknown = set(getattr(self, option)) - set(self.names)
            if unknown:
                kind = "regions" if self.structures.overlapping else "classes"
                raise PyrasegError(f"{option} names {sorted(unknown)}, but the {kind} are {self.names}.")
        if self.tolerance < 0 or not 0 <= self.lesion_overlap <= 1 or not 0 <= (self.iou_threshold or 0) <= 1:
            raise PyrasegError(
                "The tolerance of the surface Dice is 0 mm or more, lesion_overlap and iou_threshold are shares from "
                f"0 to 1: got {self.tolerance}, {self.lesion_overlap} and {self.iou_threshold}."
            )

    @cached_property
    def structures(self) -> Structures:
        """Return what is scored."""
        return Structures(self.class_names, self.regions)

    @property
    def names(self) -> list[str]:
        """Return the names of what is scored: all classes but the background, or all regions."""
        return self.structures.names[1:]

    def score(
        self, prediction: Tensor, truth: Tensor, geometry: Geometry | None, annotated: Sequence[bool] | None = None
    ) -> tuple[list[dict], dict[str, Detection]]:
        """Return one row a foreground class that was annotated, and the lesions of the classes that have them.

        A row holds `METRICS`, `SIZES` and `LESIONS`; what has no meaning is NaN: all metrics where truth and prediction
        both lack the class, distances where one of them does, mm and ml without a patient position.

        Args:
            prediction: class indices, (1, W, H[, D]).
            truth: class indices, the same shape; what is `UNKNOWN` there belongs to no class in either.
            geometry: of the case; None counts in pixels.
            annotated: which of all classes (not regions) were in this case; None for all. The others are unknown.
        """
        names, overlapping = self.structures.names, self.structures.overlapping
        overlaps = count_overlap(prediction, truth, len(names), overlapping=overlapping)
        known_of = None if annotated is None else self.structures.annotated(np.asarray(annotated))
        known = truth != UNKNOWN
        predicted, true = (np.asarray(torch.where(known, labels, 0).cpu())[0] for labels in (prediction, truth))
        rows, lesions = [], {}
        for number, name in enumerate(names):
            if number == 0 or (known_of is not None and not known_of[number]):
                continue
            counts = overlaps[number - 1]
            masks = self.structures.mask(predicted, number), self.structures.mask(true, number)
            hits, extra, missed = counts.tolist()
            row = dict.fromkeys((*METRICS, *SIZES, *LESIONS), math.nan)
            row |= {"truth_voxels": int(hits + missed), "predicted_voxels": int(hits + extra)}
            row |= dict(zip(("dice", "iou", "precision", "recall"), ratios(counts).tolist(), strict=True))
            if hits + extra + missed:
                if self.iou_threshold is not None:
                    row["thresholded_iou"] = row["iou"] if row["iou"] >= self.iou_threshold else 0.0
                row |= self._surfaces(*masks, geometry)
                if name in self.thin_classes:
                    row["cldice"] = centerline_dice(*masks)
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
