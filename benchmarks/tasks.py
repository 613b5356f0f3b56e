# SPDX-License-Identifier: Apache-2.0
"""Train a task on one thread, score its test part once, and keep what was measured; or write the table of the docs.

python -m benchmarks.tasks run lungs DATA
python -m benchmarks.tasks table
"""

import argparse
import csv
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from bundle.pyraseg.core import task_files
from bundle.pyraseg.evaluation import mean_interval
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "tasks"
PAGE = ROOT / "docs" / "tasks.md"
TASKS = ("lungs", "vessels")
HEADER = [
    "| task | cases: training, validation, test | patients in test | split | epochs x samples | minutes "
    "| validation Dice | test Dice | test IoU |",
    "|---|---|---|---|---|---|---|---|---|",
]


def run(task: str, dataset_dir: Path, work: Path) -> None:
    """Train and evaluate a task below `work`, and keep the results."""
    options = ("--dataset_dir", str(dataset_dir.resolve()), "--model_file", str(work / "model.pt"))
    options += ("--num_workers", "0", "--cache_dir", str(work.parent / "cache"))
    before = processor_seconds()
    bundle("training", task, "train", "--output_dir", str(work), *options)
    minutes = (processor_seconds() - before) / 60
    bundle("evaluating", task, "evaluate", "--output_dir", str(work / "test"), *options)
    keep(task, work, minutes)


def bundle(run_id: str, task: str, program: str, *options: str) -> None:
    """Run a program of a task on one thread; its output goes to the screen."""
    files = str([str(file) for file in task_files(ROOT / "configs", program, task)])
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", files, *options]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)


def processor_seconds() -> float:
    """Return the processor time of the programs that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


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


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    programs = parser.add_subparsers(dest="program", required=True)
    running = programs.add_parser("run", help="train a task, score its test part and keep the results")
    running.add_argument("task", choices=TASKS)
    running.add_argument("dataset_dir", type=Path)
    running.add_argument("--work", type=Path, default=ROOT / "runs" / "tasks", help="default: %(default)s")
    programs.add_parser("table", help=f"write the table of {PAGE.relative_to(ROOT)} from the results")
    options = parser.parse_args(argv)
    if options.program == "run":
        run(options.task, options.dataset_dir, options.work.resolve() / options.task)
    else:
        PAGE.write_text(replace_between_markers(PAGE.read_text(encoding="utf-8"), "tasks", table()), encoding="utf-8")


if __name__ == "__main__":
    main()
