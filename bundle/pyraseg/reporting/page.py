# SPDX-License-Identifier: Apache-2.0
"""One HTML file that shows an evaluation: it opens from disk and asks no network for anything."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from bundle.pyraseg.core import PyrasegError, file_digest, protect, write_text
from bundle.pyraseg.evaluation import FORMAT, LESIONS, METRICS, SIZES, read_scores
from bundle.pyraseg.figures import color_of
from bundle.pyraseg.reporting.rendering import render_page
from bundle.pyraseg.reporting.sections import (
    RECORDED,
    box_plots,
    calibration_chart,
    provenance,
    read_log,
    training_charts,
    uncertainty_chart,
)

logger = logging.getLogger(__name__)

#: Characters of pictures in a page: with all else of 200 cases it is below 10 MB.
ROOM = 8_600_000
#: Metrics by which cases are sorted: heading, and whether more is better.
SORTED = {
    "dice": ("Dice", True),
    "iou": ("IoU", True),
    "thresholded_iou": ("thresholded IoU", True),
    "cldice": ("clDice", True),
    "precision": ("precision", True),
    "recall": ("recall", True),
    "surface_dice": ("surface Dice", True),
    "hd95_mm": ("HD95 (mm)", False),
    "hd95_px": ("HD95 (pixels)", False),
    "absolute_volume_difference_ml": ("volume error (ml)", False),
}


def write_report(
    output_dir: str | Path,
    *,
    training_dir: str | Path | None = None,
    path: str | Path | None = None,
    hide_names: bool = False,
) -> Path:
    """Write the report of an evaluation and return its path.

    Args:
        output_dir: of `evaluating`: `scores.csv` and `summary.json`, and where they are there `pictures.json` and
            `evaluation.json`.
        training_dir: output folder of the training, for its curves; where it is not given, see `find_training`.
        path: of the page; `report.html` in `output_dir` where it is not given.
        hide_names: call the cases "case 1" and so on, in the order of `scores.csv`: their own names are paths of the
            data set, which may be those of patients.

    Raises:
        PyrasegError: a file is absent, belongs to another evaluation or is no such file; `path` is a folder.
    """
    folder = Path(output_dir)
    target = folder / "report.html" if path is None else Path(path)
    if target.is_dir():
        raise PyrasegError(f"{target} is a folder. Name the file to write, such as {target / 'report.html'}.")
    protect(folder / name for name in ("scores.csv", "summary.json", "pictures.json", "evaluation.json"))
    rows = read_scores(folder)
    summary = _read_json(folder / "summary.json")
    if summary.get("format") != FORMAT:
        raise PyrasegError(f"{folder / 'summary.json'} is not of this version. Evaluate again.")
    names = list(dict.fromkeys(case for case, _ in rows))
    if summary["cases"] != len(names):
        raise PyrasegError(f"summary.json and scores.csv of {folder} are of different cases. Evaluate again.")
    pictures = _optional(folder / "pictures.json", "cases").get("cases")
    if pictures is not None and not _belong_together(pictures, rows, list(summary["classes"])):
        raise PyrasegError(
            f"pictures.json and scores.csv of {folder} are of different cases or predictions. Evaluate again, or "
            "delete pictures.json for a report without pictures."
        )
    made_of = _optional(folder / "evaluation.json", *RECORDED)
    training = find_training(folder, made_of) if training_dir is None else Path(training_dir)
    protect([] if training is None else [training / "log.csv"])
    shown = {name: f"case {number}" if hide_names else name for number, name in enumerate(names, start=1)}
    data = {
        "unit": summary.get("unit", "patients"),
        **page_data(rows, list(summary["classes"]), list(summary["by"]), shown, pictures),
    }
    text = render(
        data=data,
        summary=summary,
        circumstances={column: groups for column, groups in summary["by"].items() if groups},
        boxes=box_plots(data, summary),
        training=[] if training is None else training_charts(read_log(training), data),
        calibration=calibration_chart(summary, data),
        uncertainty=uncertainty_chart(summary),
        made_of=provenance(made_of, summary, training),
    )
    write_text(target, text)
    logger.info("The report (%.1f MB) is %s", target.stat().st_size / 1e6, target)
    return target


def find_training(evaluation: Path, made_of: Mapping[str, Any]) -> Path | None:
    """Return the folder beside an evaluation's whose `best.pt` are the very weights that were evaluated, or None.

    Args:
        evaluation: output folder of `evaluating`.
        made_of: content of its `evaluation.json`; empty where there is none.
    """
    for best in sorted(evaluation.resolve().parent.glob("*/best.pt")) if made_of else []:
        if (best.parent / "log.csv").is_file() and file_digest(best) == made_of["weights"]["sha256"]:
            return best.parent
    return None


def page_data(
    rows: Mapping[tuple[str, str], Mapping[str, str]],
    classes: Sequence[str],
    by: Sequence[str],
    names: Mapping[str, str],
    pictures: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return what the page's own program works with, as plain values.

    Args:
        rows: of `scores.csv` by case and class, as text; a case has none of a class that it was not annotated for.
        classes: names of all foreground classes, in their order.
        by: columns with circumstances; "size" is none of a case.
        names: by case, in their order, under which the page shows them.
        pictures: of the cases in the same order, see `CasePictures`; see `choose_views` for which of them are shown.

    Returns:
        `classes` (with `name` and `color`), `columns` (Dice, and all other scores that have a value), `metrics` (those
        of `SORTED` among them, with heading and whether more is better), `by` and `cases`: `name`, `patient`, `by`,
        `scores` (by class and column; None for no figure), `depth` (slices of the volume) and `views`, ascending
        by slice, with `first`, the place among them of the most telling one.
    """
    written = [*METRICS, *SIZES, *LESIONS, "uncertainty"]
    columns = [column for column in written if column == "dice" or any(row.get(column) for row in rows.values())]
    circumstances = [column for column in by if column != "size"]
    cases, dice = [], []
    for case, name in names.items():
        of_classes = [rows.get((case, class_name), {}) for class_name in classes]
        scores = [[float(row[column]) if row.get(column) else None for column in columns] for row in of_classes]
        told = next(filter(None, of_classes))  # any row tells what is the case's own
        circumstance = [told[column] or "not stated" for column in circumstances]
        cases.append({"name": name, "patient": told["patient"], "by": circumstance, "scores": scores})
        known = [float(row["dice"]) for row in of_classes if row.get("dice")]
        dice.append(sum(known) / len(known) if known else math.inf)
    views = choose_views([case["views"] for case in pictures], dice) if pictures else [[]] * len(cases)
    for place, (case, chosen) in enumerate(zip(cases, views, strict=True)):
        shown = sorted(chosen, key=lambda view: view["slice"] or 0)
        case["depth"] = pictures[place]["depth"] if pictures else None
        case["first"] = shown.index(chosen[0]) if chosen else None
        case["views"] = shown
    values = range(1, len(classes) + 1)
    colors = [f"#{bytes(color_of(np.array(value)).tolist()).hex()}" for value in values]
    return {
        "classes": [{"name": name, "color": color} for name, color in zip(classes, colors, strict=True)],
        "columns": columns,
        "metrics": {key: SORTED[key] for key in SORTED if key in columns},
        "by": circumstances,
        "cases": cases,
    }


def _belong_together(
    pictures: Sequence[Mapping[str, Any]], rows: Mapping[tuple[str, str], Mapping[str, str]], classes: Sequence[str]
) -> bool:
    """Return whether pictures are of the cases and predictions of the rows: each class has as many voxels."""
    counts = {
        (case["case"], name): str(case.get("predicted", {}).get(str(number), 0))
        for case in pictures
        for number, name in enumerate(classes, start=1)
        if (case["case"], name) in rows
    }
    same_cases = [case["case"] for case in pictures] == list(dict.fromkeys(case for case, _ in rows))
    return (
        same_cases
        and list(counts) == list(rows)
        and all(counts[key] == row["predicted_voxels"] for key, row in rows.items())
    )


def choose_views(views: Sequence[Sequence[dict[str, Any]]], dice: Sequence[float]) -> list[list[dict[str, Any]]]:
    """Return the views of each case that a page has room for: one of every case, then all others of the worst.

    Args:
        views: of each case, the most telling first.
        dice: of each case.
    """
    worst_first = sorted(range(len(views)), key=lambda place: dice[place])
    wanted = [(place, view) for place in worst_first for view in views[place][:1]]
    wanted += [(place, view) for place in worst_first for view in views[place][1:]]
    chosen, left = [[] for _ in views], ROOM
    for place, view in wanted:
        left -= len(json.dumps(view))
        if left < 0:
            break
        chosen[place].append(view)
    return chosen


def render(**content: Any) -> str:
    """Return the page of an evaluation."""
    folder = files("bundle.pyraseg.reporting") / "templates"
    template, script = ((folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.js"))
    return render_page(template, script=script, **content)


def _read_json(path: Path, *needed: str) -> dict[str, Any]:
    if not path.is_file():
        raise PyrasegError(f"There is no {path.name} in {path.parent}. Give the output folder of `evaluating`.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PyrasegError(f"{path} is not valid JSON ({error}). Evaluate again.") from error
    if not isinstance(content, dict) or not set(needed) <= set(content):
        raise PyrasegError(f"{path} is not a file of `evaluating`, or of another version. Evaluate again.")
    return content


def _optional(path: Path, *needed: str) -> dict[str, Any]:
    return _read_json(path, *needed) if path.exists() else {}
