# SPDX-License-Identifier: Apache-2.0
"""Measure how often the bootstrap's 95 % interval holds the true mean, at numbers of patients that are reported.

Scores are drawn from distributions whose mean is known and that look as Dice does; the interval is that of
`bundle.pyraseg.evaluation.bootstrap`. Run ``python -m benchmarks.bootstrap_coverage`` from the repository root: it
takes minutes.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bundle.pyraseg.core import replacing
from bundle.pyraseg.evaluation import difference_interval, mean_interval
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "bootstrap_coverage.json"
PAGE = ROOT / "docs" / "evaluation.md"

#: A patient's case scores beta(16, 2) (mean 0.89, skewed to the left), as an organ that is found well.
GOOD = (16.0, 2.0)
#: Or 0 with this probability and beta(4, 2) otherwise, as a lesion that may be missed.
MISSED, FOUND = 0.15, (4.0, 2.0)

Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, list[int]]]


def organ(random: np.random.Generator, patients: int) -> tuple[np.ndarray, list[int]]:
    """Return one score a patient, of a well-found organ."""
    return random.beta(*GOOD, size=patients), list(range(patients))


def lesion(random: np.random.Generator, patients: int) -> tuple[np.ndarray, list[int]]:
    """Return one score a patient, of a lesion that is missed at times."""
    return np.where(random.random(patients) < MISSED, 0, random.beta(*FOUND, size=patients)), list(range(patients))


def two_eyes(random: np.random.Generator, patients: int) -> tuple[np.ndarray, list[int]]:
    """Return two scores a patient that are alike: the patient's own lesion score, and a beta around it."""
    own = 0.1 + 0.8 * random.beta(*FOUND, size=patients)
    return np.repeat(own, 2) + random.uniform(-0.05, 0.05, 2 * patients), np.repeat(range(patients), 2).tolist()


def beta_mean(a: float, b: float) -> float:
    return a / (a + b)


CASES: dict[str, tuple[Draw, float]] = {
    "organ, one case a patient": (organ, beta_mean(*GOOD)),
    "lesion, missed in 15 %": (lesion, (1 - MISSED) * beta_mean(*FOUND)),
    "two cases a patient": (two_eyes, 0.1 + 0.8 * beta_mean(*FOUND)),
}
SIZES = (2, 5, 10, 20, 40, 85, 300)


def coverage(draw: Draw, mean: float, *, patients: int, repeats: int, resamples: int, seed: int) -> dict[str, float]:
    """Return how many of the intervals hold the true mean, by patient and as if each case were a patient."""
    random = np.random.default_rng(seed)
    held = {"interval": 0, "cases_as_patients": 0}
    widths = 0.0
    for repeat in range(repeats):
        scores, of = draw(random, patients)
        found = mean_interval(scores, patients=of, resamples=resamples, seed=repeat)
        held["interval"] += found.low <= mean <= found.high
        widths += found.high - found.low
        if len(scores) > patients:
            found = mean_interval(scores, resamples=resamples, seed=repeat)
        held["cases_as_patients"] += found.low <= mean <= found.high
    shares = {name: round(count / repeats, 4) for name, count in held.items()}
    if len(scores) == patients:
        del shares["cases_as_patients"]
    return {**shares, "mean_width": round(widths / repeats, 4)}


def paired(*, patients: int, repeats: int, resamples: int, seed: int) -> dict[str, float]:
    """Return how many paired intervals hold the true difference of two models, 0.02 on average."""
    random = np.random.default_rng(seed)
    held, widths = 0, 0.0
    for repeat in range(repeats):
        hardness, _ = lesion(random, patients)
        gain = 0.02 + 0.05 * random.standard_normal(patients) * (hardness > 0)  # a missed lesion is missed by both
        found = difference_interval(hardness + gain, hardness, resamples=resamples, seed=repeat)
        held += found.low <= 0.02 <= found.high
        widths += found.high - found.low
    return {"interval": round(held / repeats, 4), "mean_width": round(widths / repeats, 4)}


def measure(repeats: int, resamples: int, sizes: tuple[int, ...] = SIZES) -> list[dict]:
    """Return a row for every distribution and number of patients."""
    rows = []
    options = {"repeats": repeats, "resamples": resamples}
    for name, (draw, mean) in CASES.items():
        for patients in sizes:
            found = coverage(draw, mean, patients=patients, seed=patients, **options)
            rows.append({"scores": name, "patients": patients, **found})
            print(rows[-1], flush=True)
    for patients in sizes:
        found = paired(patients=patients, seed=patients, **options)
        rows.append({"scores": "difference of two models, paired", "patients": patients, **found})
        print(rows[-1], flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """Return the table of the docs: coverage in per cent by number of patients."""
    sizes = list(dict.fromkeys(row["patients"] for row in rows))
    lines = ["| patients | " + " | ".join(map(str, sizes)) + " |", "|---" * (len(sizes) + 1) + "|"]
    for name in dict.fromkeys(row["scores"] for row in rows):
        of = [row for row in rows if row["scores"] == name]
        lines.append(f"| {name} | " + " | ".join(f"{100 * row['interval']:.1f}" for row in of) + " |")
        if "cases_as_patients" in of[0]:
            cells = " | ".join(f"{100 * row['cases_as_patients']:.1f}" for row in of)
            lines.append(f"| the same, each case drawn alone | {cells} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000, help="samples of patients (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=1000, help="draws of each interval (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=PAGE, help="whose table is replaced (default: %(default)s)")
    options = parser.parse_args(argv)
    rows = measure(options.repeats, options.resamples)
    report = {"level": 0.95, "repeats": options.repeats, "resamples": options.resamples, "rows": rows}
    with replacing(options.output) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = replace_between_markers(options.page.read_text(encoding="utf-8"), "coverage", table(rows))
    with replacing(options.page) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"Written to {options.output} and to the table of {options.page}")


if __name__ == "__main__":
    main()
