# SPDX-License-Identifier: Apache-2.0
"""Measure which foreign images the guard of each model flags, and write the table of docs/guard.md.

python -m benchmarks.guard DATA
python -m benchmarks.guard DATA --tasks lungs --models runs/tasks
python -m benchmarks.guard --table

DATA holds the data sets, each in a folder of its task's name or as it is called where it comes from, and
dicom_robustness and ct_abdomen. The weights are models/TASK.pt; of those that are not there, or have no guard, the
table says so. Every set has pictures of its own and is foreign to all other models. What is measured goes to
benchmarks/results/guard/TASK.json.

python -m benchmarks.guard --cost MODEL.onnx IMAGE

prints how much longer an exported model with a guard takes for an image, or a folder with one series, on one thread:
the processor time with it and without.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.guard.costs import cost_of
from benchmarks.guard.measuring import config_of, measured
from benchmarks.guard.pictures import folder_of, of_dicom, of_skimage, of_task, slices_of
from bundle.pyraseg.core import write_json
from bundle.pyraseg.workflow import plain_console
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "guard"
PAGE = ROOT / "docs" / "guard.md"
#: The tasks, and what else the folders of their data sets are called.
TASKS = {
    "dermoscopy": "dermoscopy_isic2017",
    "lungs": "chest_xray_lungs",
    "vessels": "retina_vessels",
    "hippocampus": "mr_hippocampus",
    "heart": "mr_heart_volumes",
    "nerves": "ultrasound_nerves",
}
OTHERS = ("skimage", "robustness", "ct")


def foreign_pictures(data: Path) -> dict[str, list[np.ndarray]]:
    """Return the pictures of all sets, by their names."""
    sets = {
        task: list(of_task(config_of(task, folder_of(data, task, other), "train"))) for task, other in TASKS.items()
    }
    sets["skimage"] = list(of_skimage())
    sets["robustness"] = list(of_dicom(folder_of(data, "dicom_robustness")))
    sets["ct"] = list(slices_of(folder_of(data, "ct_abdomen") / "dicom"))
    return sets


def table(results: Path) -> str:
    """Return the tables of the page, from what was measured."""
    found = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in results.glob("*.json") if path.stem in TASKS
    }
    columns = [*TASKS, *OTHERS]
    lines = [
        "| model | its own, as shipped | " + " | ".join(columns) + " |",
        "|" + "---|" * (len(columns) + 2),
    ]
    for task in TASKS:
        if task not in found:
            cells = ["no guard measured yet", *("" for _ in columns)]
        else:
            of_task = found[task]
            cells = [f"{_percent(of_task['own']['flagged as shipped'])} % of {of_task['own']['images']}"]
            cells += [_cell(of_task["foreign"].get(name)) for name in columns]
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    for task, of_task in sorted(found.items()):
        if of_task["changed"]:
            lines += ["", f"| {task}, its own images | flagged |", "|---|---|"]
            lines += [f"| {name} | {_cell(figures)} |" for name, figures in of_task["changed"].items()]
    return "\n".join(lines)


def _cell(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "-"
    return f"{_percent(figures['flagged'])} ({_percent(figures['flagged as shipped'])})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", help="folder of the data sets")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), help="default: all")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="folder of the weights")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the figures")
    parser.add_argument("--table", action="store_true", help="write the table from what was measured, and no more")
    parser.add_argument("--cost", type=Path, nargs=2, metavar=("MODEL", "IMAGE"), help="measure what a guard costs")
    options = parser.parse_args(argv)
    if options.data is None and not options.table and options.cost is None:
        parser.error("give the folder of the data sets, or --table, or --cost")
    return options


def main(argv: list[str] | None = None) -> None:
    plain_console()
    options = arguments(argv)
    if options.cost is not None:
        print(cost_of(*options.cost))
        return
    if not options.table:
        foreign = foreign_pictures(options.data)
        print(", ".join(f"{name}: {len(pictures)} pictures" for name, pictures in foreign.items()), flush=True)
        for task in options.tasks:
            weights = options.models / f"{task}.pt"
            found = measured(task, folder_of(options.data, task, TASKS[task]), weights, foreign)
            if found is None:
                print(f"{task}: {weights} is not there, or has no guard (pyraseg guard {task})", flush=True)
                continue
            write_json(options.results / f"{task}.json", found)
            print(f"{task}: {found['own']}", flush=True)
    page = replace_between_markers(PAGE.read_text(encoding="utf-8"), "guard", table(options.results))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
