# SPDX-License-Identifier: Apache-2.0
"""Train a task with several seeds and settings, and compare the settings on the validation part, with intervals.

pyraseg sweep dermoscopy --seeds 0 1 2 --set learning_rate=0.001,0.002 decoder_stride=4,8 --output_dir runs/sweep
pyraseg sweep spleen --seeds 0 1 2 --set encoder=resnet18,resnet34 --dataset_dir data/spleen --part 2/6

Every combination of the values, with every seed, is a training in a process of its own, on the same split. Other
options of `pyraseg train` apply to all of them. A rerun does only what is missing: finished trainings are kept, and an
interrupted one goes on from its last checkpoint. One that fails is named, and stops no other. Nothing is written to
models/; the test part is not looked at.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.pyraseg.commands import add_configs, command_parser, split_options
from bundle.pyraseg.core import PyrasegError, held, require_writable
from bundle.pyraseg_tools.commands.parts import part_of

if TYPE_CHECKING:  # behind the arguments, so that --help loads no PyTorch
    from bundle.pyraseg_tools.sweep import Row, Trial

logger = logging.getLogger(__name__)


def arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, dict[str, Any]]:
    parser = command_parser("sweep", __doc__)
    add_configs(parser, "train")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED",
                        help="seeds of each setting's trainings (default: 0 1 2); --seed is of the split")  # fmt: skip
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE,VALUE", dest="choices",
                        help="values of options of the config; all combinations are trained")  # fmt: skip
    parser.add_argument("--output-dir", type=Path, default=Path("runs/sweep"),
                        help="folder of all that is written (default: %(default)s)")  # fmt: skip
    parser.add_argument("--parallel", type=int, default=1, metavar="N",
                        help="trainings at a time, which share the threads (default: %(default)s)")  # fmt: skip
    parser.add_argument("--part", type=part_of, default=(1, 1), metavar="N/OF",
                        help="do one part of the trainings, such as 3/64 (default: all)")  # fmt: skip
    options, settings = split_options(parser, argv)
    if options.parallel < 1:
        parser.error(f"--parallel is 1 or more, not {options.parallel}")
    return options, settings


def main(argv: list[str] | None = None) -> None:
    options, settings = arguments(argv)
    from bundle.pyraseg_tools.commands.pacs_common import log_to_output
    from bundle.pyraseg_tools.sweep import compared, grid, in_part, parse_choices, plan, run_trials, write_tables

    log_to_output()
    require_writable([options.output_dir])
    number, parts = options.part
    with held(options.output_dir, "sweep" if parts == 1 else f"sweep-{number}-of-{parts}"):
        choices = grid(parse_choices(options.choices))
        trials = plan(options.tasks, choices, options.seeds, options.output_dir, settings)
        try:
            failed = run_trials(in_part(trials, options.part), parallel=options.parallel)
        except KeyboardInterrupt:
            sys.exit("Stopped. What was done is kept: the same command goes on.")
        rows = compared(trials)
        write_tables(options.output_dir, rows)
    _tell(options, settings, rows)
    if failed:
        lines = "\n".join(f"  {trial}: {reason}" for trial, reason in failed)
        raise PyrasegError(
            f"{len(failed)} of {len(in_part(trials, options.part))} runs failed:\n{lines}\nThe others are in the "
            "tables. The same command tries these again."
        )


def _tell(options: argparse.Namespace, settings: dict[str, Any], rows: "Sequence[Row]") -> None:
    """Print the settings, what their figures are worth, and how the best is evaluated."""
    from bundle.pyraseg.evaluation import read_unit
    from bundle.pyraseg_tools.sweep import table_text

    best = rows[0]
    if not best.dice:
        print("No run is finished: there is nothing to compare.")
        return
    print(table_text(rows, unit=read_unit(best.trials[0].validation)))
    print(f"The tables are {options.output_dir / 'settings.csv'} and {options.output_dir / 'runs.csv'}.")
    if any(len(row.dice) < row.planned for row in rows):
        print("Not all runs are finished: the order may change.")
    chosen = "the best epoch of each training" + (f" and the best of {len(rows)} settings" if len(rows) > 1 else "")
    print(f"The validation cases choose {chosen}, so the best Dice is too good.")
    print("Evaluate the choice once, on the test part:")
    print(f"  {_evaluation(options, settings, best.trials[0])}")


def _evaluation(options: argparse.Namespace, settings: dict[str, Any], trial: "Trial") -> str:
    """Return the command that evaluates a run on the test part."""
    from bundle.pyraseg.commands import command_line
    from bundle.pyraseg_tools.sweep import evaluation_options

    places = {"model_file": str(trial.model), "output_dir": str(options.output_dir / "test")}
    of_both = evaluation_options({**settings, **trial.setting.values})
    return command_line("evaluate", options.tasks, {**of_both, **places})
