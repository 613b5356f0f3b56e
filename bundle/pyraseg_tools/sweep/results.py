# SPDX-License-Identifier: Apache-2.0
"""What a sweep has found: each setting's Dice over seeds, and how far it lies behind the best over patients."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from bundle.pyraseg.core import write_csv
from bundle.pyraseg.evaluation import aligned, compare, read_scores
from bundle.pyraseg_tools.sweep.settings import text_of
from bundle.pyraseg_tools.sweep.trials import Trial

#: With so many seeds or fewer there is no interval over seeds.
MOST_SEEDS_FEW = 2
LEVEL = 0.95

#: Rows of an evaluation by case and class, see `read_scores`.
Scores = dict[tuple[str, str], dict[str, str]]


@dataclass
class Row:
    """Hold what is known of one setting.

    Attributes:
        setting: as text by key.
        name: of the setting.
        trials: its finished runs.
        planned: how many runs there are to be.
        dice: mean Dice on the validation part, one a run.
        behind: the row of `compare`, the best setting - this one; None for the best, and where there is none.
    """

    setting: Mapping[str, str]
    name: str
    trials: list[Trial] = field(default_factory=list)
    planned: int = 0
    dice: list[float] = field(default_factory=list)
    behind: Mapping[str, Any] | None = None

    @property
    def mean(self) -> float:
        """Return the mean Dice over seeds, NaN where no run is finished."""
        return statistics.fmean(self.dice) if self.dice else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the interval over seeds; None where they are few."""
        return seed_interval(self.dice)


def seed_interval(dice: Sequence[float]) -> tuple[float, float] | None:
    """Return the interval of a mean over seeds by Student's t, or None where there are `MOST_SEEDS_FEW` or fewer.

    It says how far the mean over other seeds may lie, on the same patients.

    >>> low, high = seed_interval([0.70, 0.72, 0.74])  # 0.72 -+ 4.303 * 0.02 / sqrt(3)
    >>> print(f"{low:.4f} {high:.4f}")
    0.6703 0.7697
    """
    if len(dice) <= MOST_SEEDS_FEW:
        return None
    half = t.ppf((1 + LEVEL) / 2, len(dice) - 1) * statistics.stdev(dice) / math.sqrt(len(dice))
    return statistics.fmean(dice) - half, statistics.fmean(dice) + half


def mean_dice(scores: Scores) -> float:
    """Return the mean over classes of the mean over the cases whose truth holds the class."""
    of_class: dict[str, list[float]] = {}
    for (_, name), row in scores.items():
        if int(row["truth_voxels"]):
            of_class.setdefault(name, []).append(float(row["dice"]))
    return statistics.fmean(statistics.fmean(values) for values in of_class.values()) if of_class else math.nan


def over_seeds(runs: Sequence[Scores]) -> Scores:
    """Return the scores of every case and class with the mean of its Dice over runs."""

    def mean(key: tuple[str, str]) -> str:
        values = [float(scores[key]["dice"]) for scores in runs if scores[key]["dice"]]
        return str(np.mean(values)) if values else ""

    return {key: {**row, "dice": mean(key)} for key, row in runs[0].items()}


def compared(trials: Iterable[Trial], *, resamples: int = 10_000) -> list[Row]:
    """Return the settings of a sweep, the best mean over seeds first and those without a finished run last.

    Args:
        trials: all of the sweep, finished or not.
        resamples: draws of the bootstrap over patients, by which the best is compared with each other setting; both
            have every case's mean over their seeds.

    Raises:
        PyrasegError: runs were scored on other cases.
    """
    rows: dict[str, Row] = {}
    scores: dict[str, list[Scores]] = {}
    for trial in trials:
        name = str(trial.setting)
        row = rows.setdefault(name, Row({key: text_of(value) for key, value in trial.setting.values.items()}, name))
        row.planned += 1
        if trial.record.is_file():
            found = read_scores(trial.validation)
            row.trials.append(trial)
            row.dice.append(mean_dice(found))
            scores.setdefault(name, []).append(found)
    ranked = sorted(rows.values(), key=lambda row: -row.mean if row.dice else math.inf)
    best = ranked[0]
    for row in ranked[1:]:
        if row.dice and len({each["patient"] for each in scores[best.name][0].values()}) > 1:
            pair = (over_seeds(scores[each.name]) for each in (best, row))
            row.behind = compare(*pair, metrics=["dice"], resamples=resamples)[-1]  # the mean, of several classes
    return ranked


def table_text(rows: Sequence[Row], *, unit: str) -> str:
    """Return the settings as text for the screen, with what the signs mean below.

    Args:
        rows: see `compared`.
        unit: over what the intervals of differences are, "patients" or "cases".
    """
    lines = [["setting", "seeds", "validation Dice [95 % over seeds]", f"best - this [95 % over {unit}]"]]
    for row in rows:
        lines.append([row.name, f"{len(row.dice)} of {row.planned}", _dice(row), _behind(row)])
    notes = []
    if any(row.dice and row.interval is None for row in rows):
        notes.append("few: fewer than 3 seeds, so there is no interval over seeds.")
    if any(row.behind and not row.behind["reliable"] for row in rows):
        notes.append(f"? fewer than 20 {unit}: the interval is unreliable.")
    return "\n".join([aligned(lines), *notes])


def _dice(row: Row) -> str:
    if not row.dice:
        return "none"
    if row.interval is None:
        return f"{row.mean:.3f} few"
    low, high = row.interval
    return f"{row.mean:.3f} [{low:.3f}, {high:.3f}]"


def _behind(row: Row) -> str:
    if row.behind is None:
        return ""
    doubt = "" if row.behind["reliable"] else "?"
    return f"{row.behind['difference']:+.3f} [{row.behind['low']:+.3f}, {row.behind['high']:+.3f}]{doubt}"


def write_tables(folder: Path, rows: Sequence[Row]) -> None:
    """Write `settings.csv`, a row a setting, and `runs.csv`, a row a finished run."""
    keys = list(rows[0].setting)
    figures = ("seeds", "planned", "dice", "low", "high", "behind_best", "behind_low", "behind_high", "cases",
               "patients", "reliable")  # fmt: skip
    settings: list[dict[str, Any]] = []
    for row in rows:
        low, high = row.interval or (math.nan, math.nan)
        line = {**row.setting, "seeds": len(row.dice), "planned": row.planned, "dice": row.mean}
        line |= {"low": low, "high": high}
        if row.behind:
            names = {"difference": "behind_best", "low": "behind_low", "high": "behind_high"}
            line |= {names.get(key, key): row.behind[key] for key in (*names, "cases", "patients", "reliable")}
        settings.append(line)
    write_csv(folder / "settings.csv", [*keys, *figures], settings)
    runs: list[dict[str, Any]] = []
    for row in rows:
        for trial, dice in zip(row.trials, row.dice, strict=True):
            result = trial.result() or {}
            place = trial.folder.relative_to(folder).as_posix()
            runs.append({**row.setting, **result, "seed": trial.seed, "dice": dice, "folder": place})
    write_csv(folder / "runs.csv", [*keys, "seed", "dice", "best_epoch", "epochs", "seconds", "folder"], runs)
