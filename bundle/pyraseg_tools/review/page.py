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
    """Return charts by heading: share accepted, and Dice of corrections, each of the last results up to each one."""
    style = {"x_name": "result", "whole": True, "marks": _new_models(reviews)}
    places = range(min(last, len(reviews)), len(reviews) + 1)
    windows = [(place, reviews[max(0, place - last) : place]) for place in places]
    lines = []
    for name, color in zip(DECISIONS, (LIGHT, *_colors(2)), strict=True):
        points = [(place, sum(one.decision == name for one in own) / len(own)) for place, own in windows]
        lines.append(Line(name, color, points))
    found = {f"Decisions, of the last {last}": line_chart("Decisions", lines, y_name="share", **style)}
    structures = structures_of(reviews)
    dice = []
    for name, color in zip(structures, _colors(len(structures)), strict=True):
        values = [(place, [one.dice[name] for one in own if _has(one, name)]) for place, own in windows]
        points = [(place, float(np.mean(own))) for place, own in values if own]
        dice += [Line(name, color, points)] if points else []
    if dice:
        heading = f"Dice of result and correction, of those among the last {last}"
        found[heading] = line_chart("Dice of corrections", dice, y_name="mean Dice", **style)
    return found


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
