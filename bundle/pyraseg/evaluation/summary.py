# SPDX-License-Identifier: Apache-2.0
"""The figures of all cases together: means with their intervals over patients, by class and by circumstance, and what
uncertainty is worth."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bundle.pyraseg.evaluation.bootstrap import FEW_PATIENTS, mean_interval
from bundle.pyraseg.evaluation.cases import METRICS


def risk_coverage(uncertainties: ArrayLike, risks: ArrayLike) -> dict[str, Any]:
    """Return how the mean risk falls when only the least uncertain cases are left to the network.

    Args:
        uncertainties: one a case, (N,).
        risks: what each case's segmentation lacks, such as 1 - Dice, (N,).

    Returns:
        `curve`: for k = 1 .. N the `coverage` k / N and the mean `risk` of the k least uncertain cases (Geifman &
        El-Yaniv, NIPS 2017); `area`: the mean of these risks (AURC); `area_random`: what it is for an uncertainty that
        tells nothing, on average; `area_best`: what it is when uncertainties are in the order of the risks.
    """
    risks = np.asarray(risks, float)
    left = np.arange(1, len(risks) + 1)
    curve = np.cumsum(risks[np.argsort(np.asarray(uncertainties, float), kind="stable")]) / left
    return {
        "area": float(curve.mean()),
        "area_random": float(risks.mean()),
        "area_best": float((np.cumsum(np.sort(risks)) / left).mean()),
        "curve": [
            {"coverage": float(k / len(risks)), "risk": float(risk)} for k, risk in zip(left, curve, strict=True)
        ],
    }


#: Metrics that have a mean over classes.
ACROSS_CLASSES = ("dice", "iou", "surface_dice")
THIRDS = ("smallest third", "middle third", "largest third")

POLICY = (
    "Means are over the cases whose truth holds the class. Cases without it are counted apart: "
    "a false alarm is one in which some voxel was predicted as the class. "
    "A missed case (nothing predicted) has overlap and surface Dice 0 and no distance. "
    "A case that was not annotated for a class counts nowhere for it."
)


def figure(scores: ArrayLike, patients: Sequence[str], *, resamples: int) -> dict[str, Any] | None:
    """Return a mean over cases with its 95 % bootstrap interval over patients, or None where no case has a score.

    Args:
        scores: (N,), or (N, C) for a mean over classes; NaN is no score.
        patients: whose case each is, (N,).
        resamples: draws of the bootstrap.

    Returns:
        `mean`, `low` and `high` (None for a single patient), `cases` and `patients` with a score, `reliable`: whether
        there are `FEW_PATIENTS` of them; if not, `values`: the mean of each patient, ascending.
    """
    scores = np.asarray(scores, float)
    if np.isnan(scores).all():  # or there are no cases
        return None
    scored = np.any(~np.isnan(scores.reshape(len(scores), -1)), axis=1)
    scores = scores[scored]
    patients = [patient for patient, there in zip(patients, scored, strict=True) if there]
    distinct = list(dict.fromkeys(patients))
    found: dict[str, Any] = {
        "cases": len(patients),
        "patients": len(distinct),
        "reliable": len(distinct) >= FEW_PATIENTS,
    }
    if len(distinct) > 1:
        interval = mean_interval(scores, patients=patients, resamples=resamples)
        found = {"mean": interval.mean, "low": interval.low, "high": interval.high, **found}
    else:
        found = {"mean": float(np.nanmean(np.nanmean(scores, axis=0))), "low": None, "high": None, **found}
    if not found["reliable"]:
        of = np.array(patients)
        found["values"] = sorted(float(np.nanmean(scores[of == patient])) for patient in distinct)
    return found


def summarize_rows(
    rows: Sequence[dict[str, Any]], lesions: Sequence[dict[str, Any]], names: Sequence[str], *, resamples: int
) -> dict:
    """Return the figures of every class, and of the means over classes.

    Args:
        rows: one a case and class that the case was annotated for, with `case`, `class`, `patient` and the columns of
            `CaseScorer.score`.
        lesions: one a true lesion, with `case`, `class`, `patient`, `size` and `found`.
        names: of all foreground classes, in their order.
        resamples: draws of every bootstrap.
    """
    classes = {}
    for name in names:
        of_class = [row for row in rows if row["class"] == name]
        there = [row for row in of_class if row["truth_voxels"]]
        patients = [row["patient"] for row in there]
        metrics = {metric: figure([row[metric] for row in there], patients, resamples=resamples) for metric in METRICS}
        classes[name] = {
            "cases": len(there),
            "absent": len(of_class) - len(there),
            "false_alarms": sum(row["predicted_voxels"] > 0 for row in of_class if not row["truth_voxels"]),
            "missed": sum(row["predicted_voxels"] == 0 for row in there),
            "truth_size": _sizes(there),
            "metrics": {metric: value for metric, value in metrics.items() if value is not None},
        }
        if not all(math.isnan(row["lesions"]) for row in of_class):
            of_lesions = [lesion for lesion in lesions if lesion["class"] == name]
            classes[name]["detection"] = _detection(of_class, of_lesions, resamples)
    return {"classes": classes, "mean": _mean(rows, names, resamples)}


def _sizes(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return smallest, median and largest truth of a class; None where no case has it, or cases differ in the unit."""
    sizes, units = [truth_size(row)[0] for row in rows], {truth_size(row)[1] for row in rows}
    if len(units) != 1:
        return None
    return {"low": min(sizes), "median": float(np.median(sizes)), "high": max(sizes), "unit": units.pop()}


def _mean(rows: Sequence[dict[str, Any]], names: Sequence[str], resamples: int) -> dict[str, Any]:
    cases = list(dict.fromkeys((row["case"], row["patient"]) for row in rows))
    index = {case: number for number, (case, _) in enumerate(cases)}
    means = {}
    for metric in ACROSS_CLASSES:
        scores = np.full((len(cases), len(names)), np.nan)
        for row in rows:
            if row["truth_voxels"]:
                scores[index[row["case"]], names.index(row["class"])] = row[metric]
        scores = scores[:, ~np.isnan(scores).all(axis=0)]
        means[metric] = figure(scores, [patient for _, patient in cases], resamples=resamples)
    return {metric: value for metric, value in means.items() if value is not None}


def _detection(rows: Sequence[dict[str, Any]], lesions: Sequence[dict[str, Any]], resamples: int) -> dict[str, Any]:
    """Return how many lesions were found, of all cases together, and how many were made up, a case."""

    def sensitivity(some: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        found = [float(lesion["found"]) for lesion in some]
        return figure(found, [lesion["patient"] for lesion in some], resamples=resamples)

    sizes = [lesion["size"] for lesion in lesions]
    return {
        "lesions": len(lesions),
        "found": sum(bool(lesion["found"]) for lesion in lesions),
        "sensitivity": sensitivity(lesions),
        "false_positives_per_case": figure(
            [row["false_positive_lesions"] for row in rows], [row["patient"] for row in rows], resamples=resamples
        ),
        "by_size": {
            third: {"sizes": [min(sizes[i] for i in members), max(sizes[i] for i in members)]}
            | {"sensitivity": sensitivity([lesions[i] for i in members])}
            for third, members in thirds(sizes).items()
        },
    }


def thirds(sizes: Sequence[float]) -> dict[str, list[int]]:
    """Return the indices of the smallest, middle and largest third; nothing where there are fewer than three."""
    order = np.argsort(sizes, kind="stable")
    if len(order) < len(THIRDS):
        return {}
    return {name: part.tolist() for name, part in zip(THIRDS, np.array_split(order, len(THIRDS)), strict=True)}


def by_column(
    rows: Sequence[dict[str, Any]],
    lesions: Sequence[dict[str, Any]],
    names: Sequence[str],
    column: str,
    *,
    resamples: int,
) -> dict[str, Any]:
    """Return the figures of the cases that share a value of a column, for each of its values.

    The column `size` is the size of the class in the truth: each class's cases in three thirds.
    """
    if column == "size":
        groups = {third: [] for third in THIRDS}
        for name in names:
            there = [row for row in rows if row["class"] == name and row["truth_voxels"]]
            for third, members in thirds([truth_size(row)[0] for row in there]).items():
                groups[third] += [there[i] for i in members]
    else:
        values = ["not stated" if row.get(column) is None else str(row[column]) for row in rows]
        groups = {value: [] for value in sorted(set(values))}
        for value, row in zip(values, rows, strict=True):
            groups[value].append(row)
    found = {}
    for value, members in groups.items():
        pairs = {(row["case"], row["class"]) for row in members}
        theirs = [lesion for lesion in lesions if (lesion["case"], lesion["class"]) in pairs]
        if members:
            theirs_of = {row["class"] for row in members}
            there = [name for name in names if name in theirs_of]
            found[value] = summarize_rows(members, theirs, there, resamples=resamples)
    return found


def truth_size(row: dict[str, Any]) -> tuple[float, str]:
    """Return the size of a class in the truth and its unit: ml with a patient position, pixels without."""
    return (row["truth_voxels"], "px") if math.isnan(row["truth_ml"]) else (row["truth_ml"], "ml")


def mean_dice_of_cases(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the mean Dice of every case over the classes that its truth or prediction holds; NaN where none is.

    Other than in the means over cases, a false alarm counts here, with 0: a person would want to see it.
    """
    dice: dict[str, list[float]] = {}
    for row in rows:
        of_case = dice.setdefault(row["case"], [])
        if not math.isnan(row["dice"]):
            of_case.append(row["dice"])
    return {case: float(np.mean(values)) if values else math.nan for case, values in dice.items()}
