# SPDX-License-Identifier: Apache-2.0
"""The page and the table that show what became of results over time."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from bundle.pyraseg.core import PyrasegError, write_csv, write_text
from bundle.pyraseg.figures import Line, color_of, line_chart
from bundle.pyraseg.reporting import render_page
from bundle.pyraseg_tools.review.alarm import Judgment, Rule, judge
from bundle.pyraseg_tools.review.figures import all_figures, structures_of
from bundle.pyraseg_tools.review.record import DECISIONS, Review

COLUMNS = ("by", "group", "figure", "count", "of", "value", "low", "high")
LIGHT = "#e8e8ea"  # what belongs to no structure


def write_review_report(reviews: Sequence[Review], folder: Path, *, rule: Rule) -> list[Judgment]:
    """Write `reviews.html` and `reviews.csv` into a folder; return what the alarm rule found.

    The table has a row for each figure of each group: `by` (all, month, scanner, model), `group`, `figure` ("share
    accepted", "Dice liver"), `count` (results with the decision, or corrections), `of` (results of the group), `value`
    with the ends of its interval.

    Args:
        reviews: the state of each result in the order of time, see `latest`.
        folder: is made.
        rule: of the alarm.

    Raises:
        PyrasegError: there is no review.
    """
    if not reviews:
        raise PyrasegError("Nothing was reviewed yet, so there is nothing to show.")
    figures, judgments = all_figures(reviews), judge(reviews, rule)
    write_csv(folder / "reviews.csv", COLUMNS, _rows(figures))
    template = (files("bundle.pyraseg_tools.review") / "templates" / "review.html").read_text(encoding="utf-8")
    text = render_page(
        template,
        figures=figures,
        structures=structures_of(reviews),
        decisions=DECISIONS,
        charts=charts(reviews, rule.last),
        last=rule.last,
        rule=str(rule),
        judgments=judgments,
        span=(reviews[0].time[:10], reviews[-1].time[:10]),
    )
    write_text(folder / "reviews.html", text)
    return judgments


def _rows(figures: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    rows = []
    for by, groups in figures.items():
        for group, found in groups.items():
            named = {f"share {name}": one for name, one in found["shares"].items()}
            named |= {f"Dice {name}": one for name, one in found["dice"].items()}
            for name, one in named.items():
                row = {"by": by, "group": group, "figure": name, "count": one["count"], "of": found["results"]}
                rows.append({**row, "value": one["mean"], "low": one["low"], "high": one["high"]})
    return rows


def charts(reviews: Sequence[Review], last: int) -> dict[str, Markup]:
    """Return charts by heading: share of each decision, and Dice of corrections, among the last results up to each."""
    style = {"x_name": "result", "whole": True, "marks": _new_models(reviews)}
    colors = (LIGHT, *_colors(2))
    shares = zip(DECISIONS, colors, moving_shares(reviews, last), strict=True)
    lines = [Line(name, color, points) for name, color, points in shares]
    found = {f"Decisions, of the last {last}": line_chart("Decisions", lines, y_name="share", **style)}
    dice = moving_dice(reviews, last)
    lines = [Line(name, color, dice[name]) for name, color in zip(dice, _colors(len(dice)), strict=True)]
    if lines:
        heading = f"Dice of result and correction, of those among the last {last}"
        found[heading] = line_chart("Dice of corrections", lines, y_name="mean Dice", **style)
    return found


def moving_shares(reviews: Sequence[Review], last: int) -> list[list[tuple[float, float]]]:
    """Return for each of `DECISIONS` its share among the last results up to each: number of the result, and share."""
    return [
        [(place, sum(one.decision == name for one in own) / len(own)) for place, own in _windows(reviews, last)]
        for name in DECISIONS
    ]


def moving_dice(reviews: Sequence[Review], last: int) -> dict[str, list[tuple[float, float]]]:
    """Return by structure its mean Dice among the last results up to each, where any of them was amended."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name in structures_of(reviews):
        values = [(place, [one.dice[name] for one in own if _has(one, name)]) for place, own in _windows(reviews, last)]
        found[name] = [(place, float(np.mean(own))) for place, own in values if own]
    return {name: points for name, points in found.items() if points}


def _windows(reviews: Sequence[Review], last: int) -> list[tuple[int, Sequence[Review]]]:
    return [
        (place, reviews[max(0, place - last) : place]) for place in range(min(last, len(reviews)), len(reviews) + 1)
    ]


def _has(review: Review, structure: str) -> bool:
    return review.decision == "amended" and structure in review.dice


def _new_models(reviews: Sequence[Review]) -> list[tuple[float, str]]:
    """Return before which results a model appears for the first time, and its name; the first is no mark."""
    seen: dict[str, float] = {}
    for place, review in enumerate(reviews, 1):
        seen.setdefault(review.model, place - 0.5)
    return [(place, name) for name, place in list(seen.items())[1:]]


def _colors(count: int) -> list[str]:
    return [f"#{bytes(color_of(np.array(value)).tolist()).hex()}" for value in range(1, count + 1)]
