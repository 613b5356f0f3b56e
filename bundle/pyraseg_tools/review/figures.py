# SPDX-License-Identifier: Apache-2.0
"""Figures of reviewed results: shares of each decision and the Dice of corrections, with their intervals, by group."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from bundle.pyraseg.evaluation import mean_interval
from bundle.pyraseg_tools.review.record import DECISIONS, Review

#: By what results are grouped: attributes of `Review`.
GROUPS = ("month", "scanner", "model")
#: Below so many results an interval is marked, as in evaluations.
FEW = 20


def share(count: int, of: int, *, level: float = 0.95) -> dict[str, Any]:
    """Return a share with its exact interval (Clopper & Pearson, Biometrika 26, 1934).

    Args:
        count: of the results with a decision.
        of: all results, at least one.
        level: of the interval.

    Returns:
        `mean`, `low`, `high`, `reliable` and `count`, as figures of an evaluation have them.
    """
    interval = binomtest(count, of).proportion_ci(level, method="exact")
    return {
        "mean": count / of,
        "low": float(interval.low),
        "high": float(interval.high),
        "reliable": of >= FEW,
        "count": count,
    }


def dice_figure(values: Sequence[float], series: Sequence[str]) -> dict[str, Any]:
    """Return a mean Dice with its bootstrap interval over image series; without one where there is a single series.

    Args:
        values: of one structure in amended results.
        series: of which image series each is: several results of one count as one that is drawn.
    """
    several = len(set(series)) > 1
    found = mean_interval(values, patients=series) if several else None
    return {
        "mean": float(np.mean(values)),
        "low": found.low if found else None,
        "high": found.high if found else None,
        "reliable": len(set(series)) >= FEW,
        "count": len(values),
    }


def structures_of(reviews: Iterable[Review]) -> list[str]:
    """Return the structures that a Dice is known of, in the order in which they appear."""
    return list(dict.fromkeys(name for review in reviews for name in review.dice if review.decision == "amended"))


def figures_of(reviews: Sequence[Review]) -> dict[str, Any]:
    """Return the figures of some results: how many, `shares` by decision, `dice` by structure of amended ones."""
    shares = {name: share(sum(one.decision == name for one in reviews), len(reviews)) for name in DECISIONS}
    amended = [one for one in reviews if one.decision == "amended"]
    dice = {}
    for name in structures_of(amended):
        known = [one for one in amended if name in one.dice]
        dice[name] = dice_figure([one.dice[name] for one in known], [one.image_series_uid for one in known])
    return {"results": len(reviews), "shares": shares, "dice": dice}


def grouped(reviews: Sequence[Review], by: str) -> dict[str, list[Review]]:
    """Return results by what they have in common, one of `GROUPS`, sorted by its name."""
    found: dict[str, list[Review]] = {}
    for review in reviews:
        found.setdefault(getattr(review, by), []).append(review)
    return dict(sorted(found.items()))


def all_figures(reviews: Sequence[Review]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the figures of all results, and those of each group: by what, and by the name of the group."""
    groups = {by: {name: figures_of(own) for name, own in grouped(reviews, by).items()} for by in GROUPS}
    return {"all": {"all": figures_of(reviews)}, **groups}
