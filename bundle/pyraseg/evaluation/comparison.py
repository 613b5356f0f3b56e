# SPDX-License-Identifier: Apache-2.0
"""Two models on the same cases: differences with their paired intervals over patients."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.pyraseg.core import PyrasegError, read_csv
from bundle.pyraseg.evaluation.bootstrap import difference_interval
from bundle.pyraseg.evaluation.cases import METRICS
from bundle.pyraseg.evaluation.summary import FEW_PATIENTS

#: Columns of scores.csv without which two evaluations cannot be compared.
NEEDED = ("case", "class", "patient", "truth_voxels")


def read_scores(path: str | Path) -> dict[tuple[str, str], dict[str, str]]:
    """Return the rows of a `scores.csv`, or of the one in a folder, by case and class.

    Raises:
        PyrasegError: there is no such file, or it is another one.
    """
    path = Path(path) / "scores.csv" if Path(path).is_dir() else Path(path)
    rows = read_csv(path, NEEDED, remedy="Give the output folder of `evaluating` by this version.")
    if not rows:
        raise PyrasegError(f"{path} has no rows. Evaluate again.")
    return {(row["case"], row["class"]): row for row in rows}


def read_unit(path: str | Path) -> str:
    """Return over what an evaluation has its intervals: "patients", or "cases" where nobody has named these."""
    path = (Path(path) if Path(path).is_dir() else Path(path).parent) / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")).get("unit", "patients") if path.is_file() else "patients"


def compare(
    first: dict[tuple[str, str], dict[str, str]],
    second: dict[tuple[str, str], dict[str, str]],
    *,
    metrics: Sequence[str],
    resamples: int = 10_000,
) -> list[dict[str, Any]]:
    """Return first - second for every metric and class, and for the mean over classes where there are several.

    A case counts where its truth holds the class and both models have the figure: what one of them missed has no
    distance, so such cases are counted in `left_out`.

    Args:
        first: rows of one evaluation, see `read_scores`.
        second: rows of the other.
        metrics: columns to compare, of `METRICS`.
        resamples: draws of every bootstrap.

    Raises:
        PyrasegError: the evaluations are not of the same cases, classes and truth, or no row has a metric.
    """
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise PyrasegError(
            f"The evaluations are not of the same cases and classes: {len(odd)} of them are in one alone, such as "
            f"{' / '.join(odd[0])}. Evaluate both models on the same part of the same data set."
        )
    for key, row in first.items():
        if row["truth_voxels"] != second[key]["truth_voxels"]:
            raise PyrasegError(
                f"The truth of {' / '.join(key)} has {row['truth_voxels']} voxels in one evaluation and "
                f"{second[key]['truth_voxels']} in the other: the labels changed in between. Evaluate again."
            )
    there = [key for key, row in first.items() if int(row["truth_voxels"])]
    classes = list(dict.fromkeys(name for _, name in there))
    patients = {case: row["patient"] for (case, _), row in first.items()}
    cases = list(patients)
    found = []
    for metric in metrics:
        scores = np.full((2, len(cases), len(classes)), np.nan)
        for model, rows in enumerate((first, second)):
            for case, name in there:
                text = rows[case, name].get(metric)
                scores[model, cases.index(case), classes.index(name)] = float(text) if text else math.nan
        if np.isnan(scores).all():
            raise PyrasegError(f"No case has the metric {metric!r}. There are: {', '.join(METRICS)}.")
        columns = {name: [index] for index, name in enumerate(classes)}
        if len(classes) > 1:
            columns["mean"] = list(range(len(classes)))
        for name, chosen in columns.items():
            pair = scores[:, :, chosen]
            both = np.logical_not(np.isnan(pair).any(axis=0))
            counted = np.any(both, axis=1)
            of = [patients[case] for case, yes in zip(cases, counted, strict=True) if yes]
            either = (~np.isnan(pair)).any(axis=0)
            row = {"metric": metric, "class": name, "cases": int(counted.sum()), "patients": len(set(of))}
            row["left_out"] = int((either & ~both).sum())
            if len(set(of)) > 1:
                interval = difference_interval(*pair[:, counted], patients=of, resamples=resamples)
                row |= {"difference": interval.mean, "low": interval.low, "high": interval.high}
                row["reliable"] = len(set(of)) >= FEW_PATIENTS
                found.append(row)
    if not found:
        raise PyrasegError("Fewer than two patients have figures of both models: there is no interval to tell.")
    return found
