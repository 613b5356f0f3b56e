# SPDX-License-Identifier: Apache-2.0
"""How far a mean over patients, or a difference of two such means, may lie from what other patients would give."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap

from bundle.pyraseg.core import PyrasegError


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
    level: float = 0.95,
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
    return mean_interval(first - second, patients=patients, level=level, resamples=resamples, seed=seed)
