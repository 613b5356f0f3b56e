# SPDX-License-Identifier: Apache-2.0
"""What a report shows beside its cases: charts, and what data, split, weights and versions it was made of."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bundle.pyraseg.core import file_digest, read_csv
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


#: What `evaluation.json` holds of what is told here.
RECORDED = ("dataset", "weights", "split", "revision", "versions", "seed", "config")
#: Options that tell about the machine or are prose, not about the model.
LEFT_OUT = ("_dir", "_file", "_root", "_uri", "remedy")


def provenance(made_of: Mapping[str, Any], summary: Mapping[str, Any], training: Path | None) -> dict[str, dict]:
    """Return headings with names and values to read.

    Args:
        made_of: content of `evaluation.json`; empty where there is none.
        summary: of the evaluation.
        training: folder of the training whose log is shown; whether it gave the weights is told.
    """
    settings = {name.replace("_", " "): _text(value) for name, value in summary["settings"].items()}
    evaluated = {"cases": summary["cases"], "patients": summary["patients"]}
    if summary.get("unit") == "cases":
        evaluated["patients"] = "not named by the data list"
    if not made_of:
        missing = "not recorded: there is no evaluation.json"
        return {"Data": evaluated, "Weights": {"": missing}, "Figures": settings}
    split, weights = made_of["split"], made_of["weights"]
    parts = ", ".join(f"{count} {part}" for part, count in split.items() if part != "hash")
    origin = {} if training is None else {"origin": _origin(weights["sha256"], training)}
    temperature = summary.get("calibration", {}).get("temperature")
    return {
        "Data": {
            "data set": made_of["dataset"],
            "split": f"{split['hash']} ({parts} cases)",
            "evaluated": made_of["config"].get("validate#dataset#data", "a list of cases").lstrip("$@"),
            **evaluated,
        },
        "Weights": {
            "file": weights["file"],
            "SHA-256": weights["sha256"],
            "temperature": "none" if temperature is None else f"{temperature:.3f}",
            **origin,
        },
        "Software": {"revision": made_of["revision"], **made_of["versions"]},
        "Figures": settings,
        "Options": _options(made_of["config"]) | {"seed": made_of["seed"]},
    }


def _origin(digest: str, training: Path) -> str:
    best = training / "best.pt"
    if not best.is_file():
        return "unknown: the training has no best.pt any more, so its curves may be of other weights"
    if file_digest(best) == digest:
        return "best epoch of the training whose curves are shown"
    return "not the training whose curves are shown: its best.pt are other weights"


def _options(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the knobs of the config: neither its components nor what names a place on the machine."""
    components = {key.partition("#")[0] for key in config if key.endswith("_target_")}
    knobs = {}
    for key, value in config.items():
        name = key.partition("#")[0]
        written = str(value).startswith(("/", "~", "$", "@", "%")) or ":\\" in str(value)
        if name not in components and not name.endswith(LEFT_OUT) and not written and value is not None:
            knobs[key.replace("#", " ")] = _text(value)
    return knobs


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
