# SPDX-License-Identifier: Apache-2.0
"""A summary of an evaluation as text for the screen."""

from collections.abc import Sequence
from typing import Any

#: Metrics of the table with their headings, in the order of the columns.
COLUMNS = {
    "iou": "IoU",
    "thresholded_iou": "thresholded",
    "cldice": "clDice",
    "precision": "precision",
    "recall": "recall",
    "hd95_mm": "HD95 mm",
    "hd95_px": "HD95 px",
    "surface_dice": "surface Dice",
    "volume_difference_ml": "volume +- ml",
}


def format_figure(figure: dict[str, Any] | None, digits: int = 3) -> str:
    """Return a mean with its interval, and a `?` where that is of few patients."""
    if figure is None:
        return "none"
    mean = f"{figure['mean']:.{digits}f}"
    if figure["low"] is None:
        return mean
    return f"{mean} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]{'' if figure['reliable'] else '?'}"


def format_table(classes: dict[str, Any], mean: dict[str, Any]) -> str:
    """Return one line a class, with the interval of the Dice, and one for the mean over classes if there are two."""
    shown = [name for name in COLUMNS if any(name in of["metrics"] for of in classes.values())]
    header = ["class", "Dice [95 % interval]", *(COLUMNS[name] for name in shown)]
    counts = {"cases": "cases", "absent": "without it", "false_alarms": "false alarms", "missed": "missed"}
    if any(of.get("not_annotated") for of in classes.values()):
        counts["not_annotated"] = "not annotated"
    header += counts.values()
    lines = []
    for name, of in classes.items():
        metrics = of["metrics"]
        cells = [name, format_figure(metrics.get("dice"))]
        cells += [f"{metrics[m]['mean']:.3f}" if m in metrics else "" for m in shown]
        lines.append([*cells, *(str(of[count]) for count in counts)])
    if len(classes) > 1:
        means = [f"{mean[m]['mean']:.3f}" if m in mean else "" for m in shown]
        lines.append(["mean", format_figure(mean.get("dice")), *means, *[""] * len(counts)])
    return aligned([header, *lines])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as text in columns: the first two to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def format_summary(summary: dict[str, Any]) -> str:
    """Return the figures of an evaluation with what is to be known to read them."""
    classes, unit = summary["classes"], summary.get("unit", "patients")
    lines = [format_table(classes, summary["mean"])]
    few = {name: of["metrics"]["dice"] for name, of in classes.items() if "dice" in of["metrics"]}
    few = {name: figure for name, figure in few.items() if not figure["reliable"]}
    if few:
        lines.append(f"? fewer than 20 {unit}: the interval is unreliable. Dice of each {unit[:-1]}:")
        lines += [f"  {name}: " + " ".join(f"{v:.3f}" for v in figure["values"]) for name, figure in few.items()]
    for name, of in classes.items():
        if "detection" in of:
            found = of["detection"]
            lines.append(
                f"{name}: {found['found']} of {found['lesions']} lesions found, sensitivity "
                f"{format_figure(found['sensitivity'])}; false positives a case "
                f"{format_figure(found['false_positives_per_case'], 2)}"
            )
    for column, groups in summary.get("by", {}).items():
        if not groups:  # too few cases to divide
            continue
        lines.append(f"Dice by {column}:")
        names = list(classes)
        header = [column, unit, *names]
        rows = [header]
        for value, of in groups.items():
            dice = [of["classes"].get(name, {}).get("metrics", {}).get("dice") for name in names]
            patients = max((figure["patients"] for figure in dice if figure), default=0)
            rows.append([value, str(patients), *(f"{f['mean']:.3f} ({f['cases']})" if f else "" for f in dice)])
        lines.append(aligned(rows))
    if "calibration" in summary:
        lines += _calibration(summary["calibration"])
    if "uncertainty" in summary:
        worth = summary["uncertainty"]
        if "area" in worth:
            lines.append(
                f"Risk-coverage area {worth['area']:.3f} (uncertainty that tells nothing {worth['area_random']:.3f}, "
                f"best order {worth['area_best']:.3f})"
            )
        lines.append(f"Look first at: {', '.join(worth['review'][:3])}")
    return "\n".join([*lines, summary["policy"]])


def _calibration(of: dict[str, Any]) -> list[str]:
    versions = [version for version in ("uncalibrated", "calibrated") if version in of]
    lines = [f"Expected calibration error within {of['margin']:g} mm (or pixels) of the boundaries:"]
    for version in versions:
        title = "as they are" if version == "uncalibrated" else f"temperature {of['temperature']:.3f}"
        lines.append(f"  {title}: " + ", ".join(f"{name} {found['error']:.3f}" for name, found in of[version].items()))
    return lines
