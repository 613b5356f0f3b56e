# SPDX-License-Identifier: Apache-2.0
"""What was kept of the trainings: their records and the scores of their cases, read again."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trials import COLUMNS
from bundle.pyraseg.core import PyrasegError


@dataclass(frozen=True)
class Scores:
    """One figure of the cases of a part.

    Args:
        cases: their names, N of them, in the order of the names.
        patients: whose each is, N.
        classes: names of the classes, K.
        values: (N, K); NaN where the truth lacks the class.
    """

    cases: list[str]
    patients: list[str]
    classes: list[str]
    values: np.ndarray

    def of_class(self, name: str) -> "Scores":
        """Return the figure of one class."""
        return Scores(self.cases, self.patients, [name], self.values[:, [self.classes.index(name)]])


@dataclass(frozen=True)
class Run:
    """A finished training.

    Args:
        folder: of what was kept, ROOT/TASK/NETWORK-seedN.
        record: what it says of itself, see `benchmarks.trials.Bench.train`.
    """

    folder: Path
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the name of the network."""
        return self.record["name"]

    @property
    def seed(self) -> int:
        """Return the seed of the training."""
        return self.record["seed"]

    @cached_property
    def length(self) -> tuple[Any, ...]:
        """Return what trainings that are compared have in common: the split, epochs, samples of each, batch."""
        knobs = self.record["knobs"]
        return (self.record["split_hash"], *(knobs[key] for key in ("epochs", "samples_per_epoch", "batch_size")))

    def is_scored(self, part: str) -> bool:
        """Return whether the cases of a part were scored."""
        return (self.folder / f"{part}.csv").is_file()

    def figures(self, part: str) -> list[str]:
        """Return the names of the figures that a part was scored by."""
        with (self.folder / f"{part}.csv").open(encoding="utf-8") as file:
            return [name for name in csv.DictReader(file).fieldnames or [] if name not in COLUMNS]

    def scores(self, part: str, figure: str) -> Scores:
        """Return a figure of the cases of a part."""
        with (self.folder / f"{part}.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        classes = list(dict.fromkeys(row["class"] for row in rows))
        patients = {row["case"]: row["patient"] for row in sorted(rows, key=lambda row: row["case"])}
        cases = list(patients)
        values = np.full((len(cases), len(classes)), np.nan)
        for row in rows:
            if int(row["truth_voxels"]) and row[figure]:
                values[cases.index(row["case"]), classes.index(row["class"])] = float(row[figure])
        return Scores(cases, list(patients.values()), classes, values)


def read_runs(root: Path, task: str) -> list[Run]:
    """Return the finished trainings of a task, in the order of their names.

    Raises:
        PyrasegError: they cannot be compared, because their splits or lengths differ.
    """
    runs = [
        Run(path.parent, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted((root / task).glob("*/run.json"))
    ]
    for run in runs[1:]:
        if run.length != runs[0].length:
            raise PyrasegError(
                f"{run.folder} and {runs[0].folder} cannot be compared: split, epochs, samples and batch are "
                f"{run.length} and {runs[0].length}. Delete the older one and train it again."
            )
    return runs


def mean_of(runs: Sequence[Run], part: str, figure: str) -> Scores:
    """Return a figure of every case as its mean over trainings that differ in the seed.

    Raises:
        PyrasegError: they were scored on different cases.
    """
    found = [run.scores(part, figure) for run in runs]
    if any((each.cases, each.classes) != (found[0].cases, found[0].classes) for each in found):
        raise PyrasegError(
            f"The trainings in {runs[0].folder.parent} were scored on different cases of the {part} part."
        )
    values = np.mean([each.values for each in found], axis=0)
    return Scores(found[0].cases, found[0].patients, found[0].classes, values)


def shares(results: Path) -> dict[float, Path]:
    """Return the folders of results by the share of the length of their trainings, the longest first."""
    found = {
        float(match[1]) if match[1] else 1.0: folder
        for folder in results.iterdir()
        if (match := re.fullmatch(r"tasks(?:_share_([\d.]+))?", folder.name))
    }
    return dict(sorted(found.items(), reverse=True))
