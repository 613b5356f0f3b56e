# SPDX-License-Identifier: Apache-2.0
"""The charts of a report, from the figures of an evaluation and the log of a training."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bundle.pyraseg.core import read_csv
from bundle.pyraseg.figures import Box, Line, box_plot, line_chart

#: Metrics with box plots: headings as in the table of cases.
SHOWN = ("dice", "surface_dice", "hd95_mm", "hd95_px", "volume_difference_ml")
LIGHT = "#e8e8ea"  # what belongs to no class


def box_plots(data: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Markup]:
    """Return by metric a chart of the cases whose truth holds the class, those that the means are over."""
    charts = {}
    headings = {key: heading for key, (heading, _) in data["metrics"].items()}
    headings["volume_difference_ml"] = "volume: prediction - truth (ml)"
    truth = data["columns"].index("truth_voxels")
    for metric in [metric for metric in SHOWN if metric in data["columns"]]:
        column, boxes = data["columns"].index(metric), []
        for number, of in enumerate(data["classes"]):
            scored = [
                (case["scores"][number][column], place)
                for place, case in enumerate(data["cases"])
                if case["scores"][number][truth] and case["scores"][number][column] is not None
            ]
            figure = summary["classes"][of["name"]]["metrics"].get(metric)
            mean = None if figure is None else (figure["mean"], figure["low"], figure["high"])
            values, places = zip(*scored, strict=True) if scored else ((), ())
            boxes.append(Box(of["name"], of["color"], values, places, mean))
        charts[headings[metric]] = box_plot(f"{headings[metric]} by class", boxes)
    return charts


def calibration_chart(summary: Mapping[str, Any], data: Mapping[str, Any]) -> Markup | None:
    """Return the reliability curves: with the temperature if there is one."""
    calibration = summary.get("calibration", {})
    found = calibration.get("calibrated", calibration.get("uncalibrated"))
    if not found:
        return None
    lines = [
        Line(of["name"], of["color"], [(b["probability"], b["frequency"]) for b in found[of["name"]]["curve"]])
        for of in data["classes"]
        if of["name"] in found
    ]
    return line_chart(
        "Calibration by class", lines, x_name="probability", y_name="how often it is right", diagonal=True
    )


def uncertainty_chart(summary: Mapping[str, Any]) -> Markup | None:
    """Return the risk that is left when the most uncertain cases go to a person."""
    curve = summary.get("uncertainty", {}).get("curve")
    if not curve:
        return None
    line = Line("risk", LIGHT, [(point["coverage"], point["risk"]) for point in curve])
    return line_chart(
        "Risk by coverage", [line], x_name="share of cases that is left to the model", y_name="mean of 1 - Dice"
    )


def read_log(folder: str | Path) -> list[dict[str, str]]:
    """Return the rows of a training's `log.csv`.

    Raises:
        PyrasegError: there is none, or it is another file.
    """
    needed = ["epoch", "loss", "stage"]
    return read_csv(Path(folder) / "log.csv", needed, remedy="Give the output folder of `training`.")


def training_charts(rows: Sequence[Mapping[str, str]], data: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """Return the loss, the Dice of the validations and the learning rates by epoch, each with its heading."""

    def points(column: str) -> list[tuple[float, float]]:
        found = [(float(row["epoch"]), float(row[column])) for row in rows if row.get(column)]
        return [point for point in found if math.isfinite(point[1])]

    starts = [row for row, before in zip(rows[1:], rows, strict=False) if row["stage"] != before["stage"]]
    style = {"x_name": "epoch", "whole": True, "marks": [(float(row["epoch"]) - 0.5, row["stage"]) for row in starts]}
    colors = {of["name"]: of["color"] for of in data["classes"]}
    dice = [Line("mean", LIGHT, points("dice"))] if len(colors) > 1 else []
    dice += [Line(name, color, points(f"dice/{name}")) for name, color in colors.items()]
    groups = [column for column in rows[0] if column.startswith("rate/")]
    rates = [
        Line(column.partition("/")[2], color, points(column))
        for column, color in zip(groups, [LIGHT, *colors.values()] * len(groups), strict=False)
    ]
    charts = []
    for heading, y_name, lines in (
        ("Loss", "mean of the epoch", [Line("loss", LIGHT, points("loss"))]),
        ("Validation", "Dice", dice),
        ("Learning rates", "rate", rates),
    ):
        if lines := [line for line in lines if line.points]:
            charts.append((heading, line_chart(f"{heading} by epoch", lines, y_name=y_name, **style)))
    return charts
