# SPDX-License-Identifier: Apache-2.0
"""How far a mean over patients, or a difference between two models, may lie from what other patients would give."""

import json
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap

from bundle.pyraseg.core import PyrasegError, protect, read_csv
from bundle.pyraseg.evaluation.cases import METRICS

#: Below this number of patients an interval is marked as unreliable and the patients' values stand beside it.
FEW_PATIENTS = 20


@dataclass(frozen=True)
class Interval:
    """A mean and the interval between two percentiles of its bootstrap distribution."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(
    scores: ArrayLike,
    *,
    patients: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return the mean of the cases' scores with its percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13).

    Patients are drawn with replacement, each with all cases, since cases of one patient tell less than cases of
    several; the mean is over the cases drawn. A score of NaN (the truth lacks the class) is no case.

    Args:
        scores: one a case, (N,); or one a case and class, (N, C), whose mean is that of the classes' means.
        patients: whose case each is, N of them; None makes each case a patient of its own.
        level: share of the bootstrap distribution inside the interval.
        resamples: how often the patients are drawn.
        seed: of the draws.

    Raises:
        PyrasegError: there are fewer than two patients with a score, or not as many patients as scores.
    """
    scores = np.asarray(scores, float)
    patients = range(len(scores)) if patients is None else patients
    if scores.ndim not in (1, 2) or len(patients) != len(scores):
        raise PyrasegError(f"There are {len(patients)} patients for scores of shape {scores.shape}: give one a case.")
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    of_case = np.array([numbers[patient] for patient in patients], int)
    scores = scores.reshape(len(scores), -1)
    sums, cases = np.zeros((2, len(numbers), scores.shape[1]))
    np.add.at(sums, of_case, np.nan_to_num(scores))
    np.add.at(cases, of_case, ~np.isnan(scores))
    scored = cases.any(axis=1)
    sums, cases = sums[scored], cases[scored]
    if len(cases) < 2:
        raise PyrasegError(f"The patients with a score are {len(cases)}: an interval needs two or more.")

    def mean(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a class that no patient drawn has is NaN, and no part of the mean
            return np.nanmean(sums[drawn].sum(axis=-2) / cases[drawn].sum(axis=-2), axis=-1)

    found = bootstrap(
        (np.arange(len(cases)),),
        mean,
        vectorized=True,
        method="percentile",
        n_resamples=resamples,
        batch=1000,
        confidence_level=level,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(mean(np.arange(len(cases)))), float(found.low), float(found.high))


def difference_interval(
    first: ArrayLike,
    second: ArrayLike,
    *,
    patients: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return the mean of `first - second` over the same cases in the same order, with its paired bootstrap interval.

    Every draw takes both models' scores of a patient, so what makes a case hard for both cancels. The rest is as in
    `mean_interval`; a case counts where both have a score.

    Raises:
        PyrasegError: the scores are not of the same cases, or what `mean_interval` raises.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape:
        raise PyrasegError(f"Scores of shapes {first.shape} and {second.shape} are not of the same cases.")
    return mean_interval(first - second, patients=patients, resamples=resamples, seed=seed)


#: Columns of scores.csv without which two evaluations cannot be compared.
NEEDED = ("case", "class", "patient", "truth_voxels")


def read_scores(path: str | Path) -> dict[tuple[str, str], dict[str, str]]:
    """Return the rows of a `scores.csv`, or of the one in a folder, by case and class.

    Raises:
        PyrasegError: there is no such file, or it is another one.
    """
    path = Path(path) / "scores.csv" if Path(path).is_dir() else Path(path)
    protect([path])
    rows = read_csv(path, NEEDED, remedy="Give the output folder of `evaluating` by this version.")
    if not rows:
        raise PyrasegError(f"{path} has no rows. Evaluate again.")
    return {(row["case"], row["class"]): row for row in rows}


def read_unit(path: str | Path) -> str:
    """Return over what an evaluation has its intervals: "patients", or "cases" where nobody has named these."""
    path = (Path(path) if Path(path).is_dir() else Path(path).parent) / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")).get("unit", "patients") if path.is_file() else "patients"


def compare(
    first: dict[tuple[str, str], dict[str, str]],
    second: dict[tuple[str, str], dict[str, str]],
    *,
    metrics: Sequence[str],
    resamples: int = 10_000,
) -> list[dict[str, Any]]:
    """Return first - second for every metric and class, and for the mean over classes where there are several.

    A case counts where its truth holds the class and both models have the figure: what one of them missed has no
    distance, so such cases are counted in `left_out`.

    Args:
        first: rows of one evaluation, see `read_scores`.
        second: rows of the other.
        metrics: columns to compare, of `METRICS`.
        resamples: draws of every bootstrap.

    Raises:
        PyrasegError: the evaluations are not of the same cases, classes and truth, or no row has a metric.
    """
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise PyrasegError(
            f"The evaluations are not of the same cases and classes: {len(odd)} of them are in one alone, such as "
            f"{' / '.join(odd[0])}. Evaluate both models on the same part of the same data set."
        )
    for key, row in first.items():
        if row["truth_voxels"] != second[key]["truth_voxels"]:
            raise PyrasegError(
                f"The truth of {' / '.join(key)} has {row['truth_voxels']} voxels in one evaluation and "
                f"{second[key]['truth_voxels']} in the other: the labels changed in between. Evaluate again."
            )
    there = [key for key, row in first.items() if int(row["truth_voxels"])]
    classes = list(dict.fromkeys(name for _, name in there))
    patients = {case: row["patient"] for (case, _), row in first.items()}
    cases = list(patients)
    found = []
    for metric in metrics:
        scores = np.full((2, len(cases), len(classes)), np.nan)
        for model, rows in enumerate((first, second)):
            for case, name in there:
                text = rows[case, name].get(metric)
                scores[model, cases.index(case), classes.index(name)] = float(text) if text else math.nan
        if np.isnan(scores).all():
            raise PyrasegError(f"No case has the metric {metric!r}. There are: {', '.join(METRICS)}.")
        columns = {name: [index] for index, name in enumerate(classes)}
        if len(classes) > 1:
            columns["mean"] = list(range(len(classes)))
        for name, chosen in columns.items():
            pair = scores[:, :, chosen]
            both = np.logical_not(np.isnan(pair).any(axis=0))
            counted = np.any(both, axis=1)
            of = [patients[case] for case, yes in zip(cases, counted, strict=True) if yes]
            either = (~np.isnan(pair)).any(axis=0)
            row = {"metric": metric, "class": name, "cases": int(counted.sum()), "patients": len(set(of))}
            row["left_out"] = int((either & ~both).sum())
            if len(set(of)) > 1:
                interval = difference_interval(*pair[:, counted], patients=of, resamples=resamples)
                row |= {"difference": interval.mean, "low": interval.low, "high": interval.high}
                row["reliable"] = len(set(of)) >= FEW_PATIENTS
                found.append(row)
    if not found:
        raise PyrasegError("Fewer than two patients have figures of both models, so there is no interval.")
    return found
