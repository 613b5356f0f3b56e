# SPDX-License-Identifier: Apache-2.0
"""Write the table of docs/tasks.md from what was kept of the trainings."""

import csv
import json
import re
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

from bundle.pyraseg.evaluation import mean_interval

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "tasks"
PAGE = ROOT / "docs" / "tasks.md"
TASKS = ("lungs", "vessels")
HEADER = [
    "| task | cases: training, validation, test | patients in test | split | epochs x samples | minutes "
    "| validation Dice | test Dice | test IoU |",
    "|---|---|---|---|---|---|---|---|---|",
]


def keep(task: str, work: Path, minutes: float, results: Path = RESULTS) -> None:
    """Copy the log and the scores of the test cases, and of the run's record what holds on every machine."""
    folder = results / task
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(work / "log.csv", folder / "log.csv")
    shutil.copyfile(work / "test" / "scores.csv", folder / "test.csv")
    record = json.loads((work / "run.json").read_text(encoding="utf-8"))
    kept = {key: record[key] for key in ("seed", "split", "versions")}
    config = record["config"]
    kept |= {key: config[key] for key in ("epochs", "samples_per_epoch", "batch_size", "patient_pattern")}
    kept["processor_minutes"] = round(minutes, 1)
    (folder / "run.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def figures(task: str, results: Path = RESULTS) -> dict[str, Any]:
    """Return what was measured of a task; Dice and IoU of a test case are means over its classes."""
    folder = results / task
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    with (folder / "log.csv").open(encoding="utf-8") as file:
        validation = max(float(row["dice"]) for row in csv.DictReader(file) if row["dice"])
    with (folder / "test.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    cases = list(dict.fromkeys(row["case"] for row in rows))
    pattern = record["patient_pattern"] or "(.*)"
    patients = [re.search(pattern, Path(case).stem).group(1) for case in cases]
    scores = {
        name: mean_interval(
            [fmean(float(row[name]) for row in rows if row["case"] == case) for case in cases], patients=patients
        )
        for name in ("dice", "iou")
    }
    return {**record, "validation": validation, "test_patients": len(set(patients)), **scores}


def table(results: Path = RESULTS) -> str:
    """Return the table of the docs."""
    lines = list(HEADER)
    for task in TASKS:
        of = figures(task, results)
        parts = ", ".join(str(of["split"][part]) for part in ("training", "validation", "test"))
        lines.append(
            f"| {task} | {parts} | {of['test_patients']} | `{of['split']['hash']}` "
            f"| {of['epochs']} x {of['samples_per_epoch']} | {of['processor_minutes']:.1f} "
            f"| {of['validation']:.3f} | {of['dice']} | {of['iou']} |"
        )
    return "\n".join(lines)
