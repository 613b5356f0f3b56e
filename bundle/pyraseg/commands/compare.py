# SPDX-License-Identifier: Apache-2.0
"""Compare two models that were evaluated on the same cases, by a paired bootstrap over patients.

pyraseg compare runs/evaluation_a runs/evaluation_b

prints first - second for every class. If an interval contains 0, these cases show no difference.
"""

import argparse
from pathlib import Path

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.core import write_csv
from bundle.pyraseg.evaluation import METRICS, aligned, compare, read_scores, read_unit

COLUMNS = ("metric", "class", "difference", "low", "high", "cases", "patients", "left_out", "reliable")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("compare", __doc__)
    parser.add_argument("first", type=Path, help="output folder of one evaluation, or its scores.csv")
    parser.add_argument("second", type=Path, help="output folder of the other evaluation, or its scores.csv")
    parser.add_argument(
        "--metrics", nargs="+", choices=METRICS, default=["dice", "iou"], metavar="METRIC",
        help=f"columns to compare (default: dice iou): {', '.join(METRICS)}",
    )  # fmt: skip
    parser.add_argument("--resamples", type=int, default=10_000, help="bootstrap draws (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("comparison.csv"), help="CSV file (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    rows = compare(
        read_scores(options.first), read_scores(options.second), metrics=options.metrics, resamples=options.resamples
    )
    unit = read_unit(options.first)
    shown = [name for name in ("cases", "patients", "left_out") if name != "patients" or unit == "patients"]
    lines = [["metric", "class", "first - second [95 % interval]", *(name.replace("_", " ") for name in shown)]]
    for row in rows:
        interval = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]{'' if row['reliable'] else '?'}"
        lines.append([row["metric"], row["class"], interval, *(str(row[name]) for name in shown)])
    print(aligned(lines))
    if not all(row["reliable"] for row in rows):
        print(f"? fewer than 20 {unit}: the interval is unreliable.")
    write_csv(options.output, COLUMNS, rows)
    print(f"{len(rows)} differences of {options.first} and {options.second} are in {options.output}")
