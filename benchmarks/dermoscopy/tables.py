# SPDX-License-Identifier: Apache-2.0
"""Write the tables of docs/dermoscopy.md and of the shipped model's card from what the trainings left.

The comparisons are kept as data beside the figures.

Run ``python -m benchmarks.dermoscopy.tables``; a table without any results says so.
"""

import argparse
import csv
import json
import statistics
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.allocators import ALLOCATORS
from benchmarks.dermoscopy.latency import MODES, RESULTS
from benchmarks.dermoscopy.networks import OURS
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.evaluation import difference_interval, mean_interval
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "dermoscopy.md"
CARD = ROOT / "docs" / "dermoscopy_card.md"
#: The training whose weights are included, beside the results of this comparison.
INCLUDED = Path("tasks", "dermoscopy", "Pyraseg-seed0")
#: Masks that agree less than this count as 0 in the thresholded Jaccard of the ISIC 2018 challenge.
THRESHOLD = 0.65
FIGURES = ("jaccard", "dice")
#: What the others of a comparison are compared with.
BASES = {"plans": "everything at once", "settings": "encoder 1e-5, rest 1e-4"}
NOTHING = "Nothing was kept of this comparison yet."


def records(results: Path, comparison: str) -> list[dict[str, Any]]:
    """Return the records of a comparison's trainings, each with its `folder`, in the order of their names."""
    files = sorted((results / comparison).glob("*/run.json"))
    return [json.loads(file.read_text(encoding="utf-8")) | {"folder": file.parent} for file in files]


def case_scores(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a part's scores: `case`, `dice` and `jaccard` (or `iou`), in the order of the names."""
    with path.open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["case"])
    named = {"jaccard": "iou" if rows and "iou" in rows[0] else "jaccard", "dice": "dice"}
    figures = {figure: np.array([float(row[named[figure]]) for row in rows]) for figure in FIGURES}
    return {"case": np.array([row["case"] for row in rows]), **figures}


def compact(scores: Path) -> str:
    """Return name, Dice and Jaccard of every case from a `scores.csv`, as CSV."""
    rows = csv.DictReader(scores.read_text(encoding="utf-8").splitlines())
    lines = [f"{Path(row['case']).stem},{float(row['dice']):.6f},{float(row['iou']):.6f}" for row in rows]
    return "\n".join(["case,dice,jaccard", *lines]) + "\n"


def compare(results: Path, part: str) -> dict[str, Any]:
    """Return every network's mean scores on a part, and the paired differences of each of ours to every other.

    Raises:
        PyrasegError: two networks were scored on different cases.
    """
    scores = {}
    for record in records(results, "networks"):
        if (record["folder"] / f"{part}.csv").is_file():
            name = record["name"] if record["seed"] == 0 else f"{record['name']}, seed {record['seed']}"
            scores[name] = case_scores(record["folder"] / f"{part}.csv")
    if any(not np.array_equal(each["case"], other["case"]) for each in scores.values() for other in scores.values()):
        raise PyrasegError(f"The networks in {results} were scored on different cases: train them on one split.")
    means = {
        name: {figure: vars(mean_interval(of_one[figure])) for figure in FIGURES} for name, of_one in scores.items()
    }
    differences = [
        {"first": ours, "second": other, "figure": figure}
        | vars(difference_interval(scores[ours][figure], scores[other][figure]))
        for ours in scores
        if ours.partition(", seed")[0] in OURS
        for other in scores
        if other != ours
        for figure in FIGURES
    ]
    cases = len(next(iter(scores.values()))["case"]) if scores else 0
    return {"part": part, "cases": cases, "means": means, "differences": differences}


def interval_text(interval: dict[str, float], *, sign: bool = False) -> str:
    """Return a mean with its interval, as tables write it."""
    shown = "{:+.3f}" if sign else "{:.3f}"
    return f"{shown} [{shown}, {shown}]".format(interval["mean"], interval["low"], interval["high"])


def networks_table(results: Path, part: str) -> str:
    """Return parameters, pace, latency and scores of every network, best Jaccard first, in Markdown."""
    compared = compare(results, part)
    if not compared["means"]:
        return NOTHING
    of_name = {record["name"]: record for record in records(results, "networks") if record["seed"] == 0}
    latency_file = results / "latency.json"
    latency = json.loads(latency_file.read_text(encoding="utf-8")) if latency_file.is_file() else None
    ways = [(mode, way) for mode, way in product(MODES, ALLOCATORS) if latency and way in latency[mode]]
    timed = [f"{mode} ms, allocator {way}" for mode, way in ways]
    head = ["network", "parameters", "s an epoch", *timed, "Jaccard", "Dice"]
    lines = [f"{compared['cases']} cases.", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, means in sorted(compared["means"].items(), key=lambda item: -item[1]["jaccard"]["mean"]):
        record = of_name[name.partition(", seed")[0]]
        cells = [name, f"{record['parameters'] / 1e6:.2f} M", f"{record['median_seconds_per_epoch']:.0f}"]
        cells += [f"{latency[mode][way]['median_ms'][record['name']]:.1f}" for mode, way in ways]
        cells += [interval_text(means[figure]) for figure in FIGURES]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences_table(results: Path, part: str) -> str:
    """Return the paired differences of ours to every other network in Markdown."""
    compared = compare(results, part)
    if not compared["differences"]:
        return NOTHING
    by_pair: dict[tuple[str, str], dict[str, dict]] = {}
    for row in compared["differences"]:
        by_pair.setdefault((row["first"], row["second"]), {})[row["figure"]] = row
    lines = ["| ours | minus | Jaccard | Dice |", "|---|---|---|---|"]
    for (ours, other), rows in by_pair.items():
        cells = [ours, other, *(interval_text(rows[figure], sign=True) for figure in FIGURES)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def repeats_table(results: Path, comparison: str) -> str:
    """Return every plan or setting with its seeds, means and ranges on validation, best Jaccard first, in Markdown.

    Scores are those of the epoch with the best Dice. The difference is to the comparison's base, case by case, over
    the seeds that both were trained with; with several of them, every case has its mean over them.
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for record in records(results, comparison):
        length = f"{record['epochs']} x {record['samples_per_epoch']}"
        size = " x ".join(map(str, record["slice_size"]))
        groups.setdefault((record["name"], record["training_cases"], length, size), []).append(record)
    if not groups:
        return NOTHING
    base = BASES[comparison]
    head = [
        "name",
        "cases",
        "samples",
        "pixels",
        "seeds",
        "Jaccard",
        "Dice",
        f"Jaccard, minus that of {base!r}",
        "s an epoch",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]

    def figures(group: list[dict[str, Any]], figure: str) -> list[float]:
        return [record["validation"][figure] for record in group]

    def jaccard(group: list[dict[str, Any]]) -> np.ndarray:
        return np.mean([case_scores(record["folder"] / "validation.csv")["jaccard"] for record in group], axis=0)

    for (name, *budget), group in sorted(groups.items(), key=lambda g: -statistics.mean(figures(g[1], "jaccard"))):
        seeds = {record["seed"] for record in group}
        cells = [name, *map(str, budget), f"{len(seeds)}"]
        cells += [range_text(figures(group, figure)) for figure in FIGURES]
        of_base = groups.get((base, *budget), [])
        both = seeds & {record["seed"] for record in of_base}
        pair = ([record for record in each if record["seed"] in both] for each in (group, of_base))
        paired = name != base and both
        cells += [interval_text(vars(difference_interval(*map(jaccard, pair))), sign=True) if paired else ""]
        cells += [f"{statistics.median(record['median_seconds_per_epoch'] for record in group):.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def unfreezing_table(results: Path) -> str:
    """Return the validation Dice after batches in training mode that nothing learned from, in Markdown."""
    path = results / "unfreezing.json"
    if not path.is_file():
        return NOTHING
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = [f"| batches | Dice of {found['validation_cases']} validation cases |", "|---|---|"]
    return "\n".join([*lines, *(f"| {batches} | {dice:.3f} |" for batches, dice in found["dice"].items())])


def leaked_cases(results: Path) -> list[str]:
    """Return the test cases that are nearly the same as one of another part (`benchmarks.dermoscopy.leaks`)."""
    path = results / "leaks.json"
    pairs = json.loads(path.read_text(encoding="utf-8"))["pairs"] if path.is_file() else []
    return sorted({case for pair in pairs for case, part in pair["images"].items() if part == "test"})


def card_figures(scores: dict[str, np.ndarray], chosen: np.ndarray) -> list[str]:
    """Return Jaccard, thresholded Jaccard and Dice of the chosen cases with their intervals."""
    jaccard, dice = (scores[figure][chosen] for figure in FIGURES)
    columns = (jaccard, np.where(jaccard < THRESHOLD, 0.0, jaccard), dice)
    return [interval_text(vars(mean_interval(column))) for column in columns]


def card_table(results: Path) -> str:
    """Return the included model's training, split and scores on photographs that chose neither it nor a setting."""
    folder = results.parent / INCLUDED
    if not (folder / "test.csv").is_file():
        return NOTHING
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    leaked = leaked_cases(results)
    lines = ["| part | photographs | SHA-256 of their names | Jaccard | thresholded Jaccard | Dice |", "|---" * 6 + "|"]
    for part in ("training", "validation", "test"):
        of_part = record["split"][part]
        cells = [part, str(of_part["cases"]), f"`{of_part['sha256'][:12]}`", "", "", ""]
        if part != "training":
            scores = case_scores(folder / f"{part}.csv")
            cells[3:] = card_figures(scores, np.full(len(scores["case"]), True))
        lines.append("| " + " | ".join(cells) + " |")
        if part == "test" and leaked:
            alone = ~np.isin(scores["case"], leaked)
            cells = ["test, without near copies", str(alone.sum()), "", *card_figures(scores, alone)]
            lines.append("| " + " | ".join(cells) + " |")
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in ("torch", "monai", "timm"))
    training = f"seed {record['seed']}, {record['epochs']} epochs of {record['samples_per_epoch']} photographs"
    best = f"the best by validation Dice was epoch {record['best_epoch']}"
    pace = f"{record['processor_minutes']:.0f} minutes of one thread of {record['device']}"
    lines += ["", f"Training: {training}, batches of {record['batch_size']}; {best}."]
    lines += [f"It took {pace}, with {versions}."]
    return "\n".join(lines)


def range_text(values: list[float]) -> str:
    """Return a mean, with its range where there are several values."""
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else mean


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--card", type=Path, default=CARD)
    given = parser.parse_args(argv)
    page = given.page.read_text(encoding="utf-8")
    for part in ("validation", "test"):
        page = replace_between_markers(page, f"networks {part}", networks_table(given.results, part))
        page = replace_between_markers(page, f"differences {part}", differences_table(given.results, part))
        compared = compare(given.results, part)
        if compared["means"]:
            path = given.results / f"networks_{part}.json"
            path.write_text(json.dumps(compared, indent=2) + "\n", encoding="utf-8")
    for comparison in BASES:
        page = replace_between_markers(page, comparison, repeats_table(given.results, comparison))
    page = replace_between_markers(page, "unfreezing", unfreezing_table(given.results))
    given.page.write_text(page, encoding="utf-8")
    card = given.card.read_text(encoding="utf-8")
    given.card.write_text(replace_between_markers(card, "shipped", card_table(given.results)), encoding="utf-8")
    print(f"Wrote the tables of {given.page} and {given.card.name}, and the comparisons as data to {given.results}")


if __name__ == "__main__":
    main()
