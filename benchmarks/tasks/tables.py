# SPDX-License-Identifier: Apache-2.0
"""Compare what was kept of the trainings, and write the tables of docs/tasks.md.

Means are over the cases whose truth holds the class, then over the classes, as in any evaluation of the bundle. With
several seeds, a case has its mean over them. Intervals are those of a bootstrap over patients, and differences are
paired: each draw takes the scores of both networks for the same patients.
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tasks.networks import OURS
from benchmarks.tasks.runs import Run, Scores, mean_of, read_runs, shares
from benchmarks.tasks.study import RESULTS, ROOT, TASKS
from bundle.pyraseg.core import PyrasegError, write_json
from bundle.pyraseg.evaluation import mean_interval
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

PAGE = ROOT / "docs" / "tasks.md"
PARTS = ("validation", "test")
#: Figures of a test part, and how tables call them; the first that a task has is the one that its networks are
#: compared by.
NAMES = {"dice": "Dice", "iou": "Jaccard", "thresholded_iou": "thresholded Jaccard", "cldice": "clDice"}
#: Tasks that are compared by another figure than Dice.
FIRST = {"dermoscopy": "iou"}
#: Fewer patients than this make an interval unreliable, which tables mark with a question mark.
FEW = 20
NOTHING = "Nothing was kept of these trainings yet."
TASK_HEAD = [
    "task", "cases: training, validation, test", "patients in test", "split", "epochs x samples", "minutes",
    "processor", "validation Dice", "test", "also on the test part",
]  # fmt: skip
PEERS_HEAD = [
    "task", "length", "network", "seeds", "parameters", "minutes", "figure", "validation",
    "ours minus this, validation", "test", "ours minus this, test",
]  # fmt: skip


def figure_of(task: str) -> str:
    """Return the figure that the networks of a task are compared by."""
    return FIRST.get(task, "dice")


def mean(scores: Scores) -> dict[str, Any]:
    """Return a mean, its interval over patients (None of a single one), and how many patients have a score."""
    scored = ~np.isnan(scores.values).all(axis=1)
    patients = {patient for patient, there in zip(scores.patients, scored, strict=True) if there}
    if len(patients) > 1:
        return vars(mean_interval(scores.values, patients=scores.patients)) | {"patients": len(patients)}
    of_classes = np.nanmean(scores.values[scored], axis=0)
    return {"mean": float(np.nanmean(of_classes)), "low": None, "high": None, "patients": len(patients)}


def difference(first: Scores, second: Scores) -> dict[str, Any]:
    """Return the mean of first - second with its paired interval over patients.

    Raises:
        PyrasegError: the scores are not of the same cases and classes.
    """
    if (first.cases, first.classes) != (second.cases, second.classes):
        raise PyrasegError("Networks were scored on different cases or classes: score them on the same data.")
    return mean(replace(first, values=first.values - second.values))


def text(interval: dict[str, Any], *, sign: bool = False) -> str:
    """Return a mean with its interval as tables write it.

    >>> text({"mean": 0.9, "low": 0.8, "high": 0.95, "patients": 6}), text({"mean": 0, "low": -1, "high": 1,
    ...     "patients": 85}, sign=True)
    ('0.900 [0.800, 0.950]?', '+0.000 [-1.000, +1.000]')
    """
    shown = "{:+.3f}" if sign else "{:.3f}"
    mark = "?" if interval["patients"] < FEW else ""
    if interval["low"] is None:
        return shown.format(interval["mean"]) + mark
    return f"{shown} [{shown}, {shown}]".format(interval["mean"], interval["low"], interval["high"]) + mark


def spread(values: Sequence[float]) -> str:
    """Return the range of the seeds, nothing for one of them.

    >>> spread([0.91, 0.9]), spread([0.9])
    (' (seeds 0.900 to 0.910)', '')
    """
    return f" (seeds {min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""


def of_seeds(runs: Sequence[Run], part: str, figure: str) -> list[float]:
    """Return the mean of a figure of every seed."""
    return [mean(run.scores(part, figure))["mean"] for run in runs]


def compare(results: Path = RESULTS) -> list[dict[str, Any]]:
    """Return every network of every task and length with its figures and ours minus it, as plain values.

    A part that was not scored is absent. The difference is over the seeds that both were trained with; there is none
    to ours itself.
    """
    found = []
    for share, root in shares(results).items():
        for task in TASKS:
            runs = read_runs(root, task)
            names = list(dict.fromkeys(run.name for run in runs))
            for name in sorted(names, key=lambda name: (name != OURS, name)):
                found.append(_compared(task, share, name, runs))
    return found


def _compared(task: str, share: float, name: str, runs: Sequence[Run]) -> dict[str, Any]:
    own, ours = ([run for run in runs if run.name == each] for each in (name, OURS))
    figure = figure_of(task)
    row: dict[str, Any] = {"task": task, "share": share, "name": name, "seeds": sorted(run.seed for run in own)}
    row["parameters"] = own[0].record["parameters"]
    row["processor_minutes"] = statistics.mean(run.record["processor_minutes"] for run in own)
    for part in PARTS:
        scored = [run for run in own if run.is_scored(part)]
        if not scored:
            continue
        scores = mean_of(scored, part, figure)
        row[part] = {"figure": figure, **mean(scores), "seeds": of_seeds(scored, part, figure)}
        row[part]["classes"] = {each: mean(scores.of_class(each)) for each in scores.classes}
        both = [run for run in ours if run.is_scored(part) and run.seed in {each.seed for each in scored}]
        if name != OURS and both:
            same = [run for run in scored if run.seed in {each.seed for each in both}]
            pair = mean_of(both, part, figure), mean_of(same, part, figure)
            of_classes = {each: difference(*(one.of_class(each) for one in pair)) for each in scores.classes}
            row[f"ours minus this, {part}"] = difference(*pair) | {"classes": of_classes}
    return row


def tasks_table(results: Path = RESULTS) -> str:
    """Return our network of every task with its training and its test part, in Markdown."""
    lines = []
    for task in TASKS:
        runs = [run for run in read_runs(shares(results)[1.0], task) if run.name == OURS]
        if not runs:
            continue
        record, scored = runs[0].record, [run for run in runs if run.is_scored("test")]
        cells = [task, ", ".join(str(record["split"][part]["cases"]) for part in ("training", *PARTS))]
        cells += [str(len(set(scored[0].scores("test", "dice").patients))) if scored else ""]
        cells += [f"`{record['split_hash']}`", f"{record['epochs']} x {record['samples_per_epoch']}"]
        cells += [f"{statistics.mean(run.record['processor_minutes'] for run in runs):.1f}", record["device"]]
        validated = [run.record["validation"]["dice"] for run in runs]
        cells += [f"{statistics.mean(validated):.3f}{spread(validated)}"]
        cells += _of_test(task, scored) if scored else ["not scored yet", ""]
        lines.append(cells)
    absent = [task for task in TASKS if task not in {cells[0] for cells in lines}]
    below = f"\n\nWithout a training by this program yet: {', '.join(absent)}." if absent else ""
    return (markdown(TASK_HEAD, lines) if lines else NOTHING) + below


def _of_test(task: str, runs: Sequence[Run]) -> list[str]:
    """Return the first figure of a test part, and all others: of each class, and the other ones."""
    first = figure_of(task)
    scores = mean_of(runs, "test", first)
    shown = f"{NAMES[first]} {text(mean(scores))}{spread(of_seeds(runs, 'test', first))}"
    others = []
    if len(scores.classes) > 1:
        others += [f"{name} {text(mean(scores.of_class(name)))}" for name in scores.classes]
    others += [
        f"{NAMES[name]} {text(mean(mean_of(runs, 'test', name)))}" for name in runs[0].figures("test") if name != first
    ]
    return [shown, "; ".join(others)]


def peers_table(results: Path = RESULTS) -> str:
    """Return every task and length that has other networks than ours, in Markdown."""
    rows = compare(results)
    with_peers = {(row["task"], row["share"]) for row in rows if row["name"] != OURS}
    lines = []
    for row in sorted(rows, key=lambda row: TASKS.index(row["task"])):  # longest first within a task: it is stable
        if (row["task"], row["share"]) not in with_peers:
            continue
        cells = [row["task"], "whole" if row["share"] == 1 else f"{row['share']:g} of it", row["name"]]
        cells += [str(len(row["seeds"])), f"{row['parameters'] / 1e6:.2f} M", f"{row['processor_minutes']:.1f}"]
        cells += [NAMES[figure_of(row["task"])]]
        for part in PARTS:
            compared = row.get(f"ours minus this, {part}")
            cells += [text(row[part]) + spread(row[part]["seeds"]) + _of_classes(row[part]) if part in row else ""]
            cells += ["" if compared is None else text(compared, sign=True) + _of_classes(compared, sign=True)]
        lines.append(cells)
    return markdown(PEERS_HEAD, lines) if lines else NOTHING


def _of_classes(row: dict[str, Any], *, sign: bool = False) -> str:
    """Return the figures of several classes, behind that of all of them."""
    classes = row["classes"]
    return "".join(f"; {name} {text(of, sign=sign)}" for name, of in classes.items()) if len(classes) > 1 else ""


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    rows = [f"| {' | '.join(cells)} |" for cells in (head, *lines)]
    return "\n".join([rows[0], "|---" * len(head) + "|", *rows[1:]])


def write(results: Path = RESULTS, page: Path = PAGE) -> None:
    """Write the tables between their markers in a page, and the comparisons as `compared.json` beside the results."""
    content = page.read_text(encoding="utf-8")
    content = replace_between_markers(content, "tasks", tasks_table(results))
    page.write_text(replace_between_markers(content, "peers", peers_table(results)), encoding="utf-8")
    write_json(shares(results)[1.0] / "compared.json", compare(results))
