# SPDX-License-Identifier: Apache-2.0
"""Compare two models by a paired bootstrap over patients: two that were evaluated, or two that are trained briefly.

pyraseg compare runs/evaluation_a runs/evaluation_b

prints first - second of two evaluations of the same cases, for every class. If an interval contains 0, these cases show
no difference.

pyraseg compare OUT/slices.json OUT/volumes.json --base spleen --minutes 5 --dataset_dir DATA

trains two overlays (or tasks) for five minutes each, of one thread of the processor and of training steps alone, scores
both on the validation part, and says which is ahead. The test part is not looked at. The same command goes on where it
was ended.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.commands.options import split_options
from bundle.pyraseg.core import PyrasegError, write_csv
from bundle.pyraseg.evaluation import METRICS, aligned, compare, read_scores, read_unit

COLUMNS = ("metric", "class", "difference", "low", "high", "cases", "patients", "left_out", "reliable")


def arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, dict[str, Any]]:
    parser = command_parser("compare", __doc__)
    kinds = "output folder of an evaluation, or its scores.csv; with --minutes, a task or a file of its configs"
    parser.add_argument("first", type=Path, help=kinds)
    parser.add_argument("second", type=Path, help="the other one")
    parser.add_argument(
        "--metrics", nargs="+", choices=METRICS, default=["dice", "iou"], metavar="METRIC",
        help=f"columns to compare (default: dice iou): {', '.join(METRICS)}",
    )  # fmt: skip
    parser.add_argument("--resamples", type=int, default=10_000, help="bootstrap draws (default: %(default)s)")
    parser.add_argument("--minutes", type=float, metavar="N", help="train both first, each for so many minutes")
    parser.add_argument("--base", nargs="+", default=[], metavar="TASK", help="tasks that both stand on, when trained")
    parser.add_argument(
        "--output", type=Path, default=None,
        help="CSV file, or with --minutes the folder of all that is written (default: comparison.csv, runs/comparison)",
    )  # fmt: skip
    return split_options(parser, argv)


def main(argv: list[str] | None = None) -> None:
    options, settings = arguments(argv)
    if options.minutes is not None:
        compare_trainings(options, settings)
        return
    if settings or options.base:
        raise PyrasegError("Options of configs and --base are for trainings: give --minutes as well.")
    compare_evaluations(options, options.first, options.second, options.output or Path("comparison.csv"))


def compare_evaluations(
    options: argparse.Namespace, first: Path, second: Path, output: Path
) -> Sequence[Mapping[str, Any]]:
    """Print and write the differences of two evaluations, and return them as rows of `compare`."""
    rows = compare(read_scores(first), read_scores(second), metrics=options.metrics, resamples=options.resamples)
    unit = read_unit(first)
    shown = [name for name in ("cases", "patients", "left_out") if name != "patients" or unit == "patients"]
    lines = [["metric", "class", "first - second [95 % interval]", *(name.replace("_", " ") for name in shown)]]
    for row in rows:
        interval = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]{'' if row['reliable'] else '?'}"
        lines.append([row["metric"], row["class"], interval, *(str(row[name]) for name in shown)])
    print(aligned(lines))
    if not all(row["reliable"] for row in rows):
        print(f"? fewer than 20 {unit}: the interval is unreliable.")
    write_csv(output, COLUMNS, rows)
    print(f"{len(rows)} differences of {first} and {second} are in {output}")
    return rows


def compare_trainings(options: argparse.Namespace, settings: Mapping[str, Any]) -> None:
    """Train both briefly, compare their scores on the validation part, and say which is ahead and how to go on."""
    from bundle.pyraseg.commands.contest import command_line, contest, verdict  # it loads MONAI

    if options.minutes <= 0 or "dice" not in options.metrics:
        raise PyrasegError("A comparison of trainings takes --minutes above 0, and dice among its --metrics.")
    output = options.output or Path("runs", "comparison")
    names = [[*options.base, str(own)] for own in (options.first, options.second)]
    both = contest(names[0], names[1], output, minutes=options.minutes, options=settings)
    for own, contender in zip((options.first, options.second), both, strict=True):
        print(f"{own}: {contender.samples:,} samples, {contender.cost:.2f} minutes of the processor")
    rows = compare_evaluations(options, both[0].evaluation, both[1].evaluation, output / "comparison.csv")
    row = [row for row in rows if row["metric"] == "dice"][-1]  # the mean, where there are several classes
    unit = read_unit(both[0].evaluation)
    ahead, sentence = verdict(row, [str(options.first), str(options.second)], unit=unit)
    print(sentence)
    if ahead is None:
        print("Longer trainings may tell them apart:")
        base = ["--base", *options.base] if options.base else []
        further = [str(options.first), str(options.second), *base, "--minutes", f"{3 * options.minutes:g}"]
        print(f"  {command_line('compare', [*further, '--output', f'{output}_longer'], settings)}")
    print("Train for good:")
    for place in (0, 1) if ahead is None else (ahead,):
        print(f"  {command_line('train', names[place], settings)}")
