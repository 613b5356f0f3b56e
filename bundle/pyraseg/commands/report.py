# SPDX-License-Identifier: Apache-2.0
"""Write the report of an evaluation again: one HTML file, with training curves if the folder of the training is given.

pyraseg report runs/evaluation --training runs/phantom
"""

import argparse
from pathlib import Path

from bundle.pyraseg.commands.console import command_parser


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("report", __doc__)
    parser.add_argument("evaluation", type=Path, help="output folder of `evaluating`")
    parser.add_argument("--training", type=Path, help="output folder of `training`, for its curves")
    parser.add_argument("--output", type=Path, help="HTML file to write (default: report.html in the evaluation)")
    parser.add_argument("--hide-names", action="store_true", help="show numbers in place of the paths of cases")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    from bundle.pyraseg.reporting import write_report  # behind the arguments, so that --help needs no extra

    path = write_report(
        options.evaluation, training_dir=options.training, path=options.output, hide_names=options.hide_names
    )
    print(f"The report ({path.stat().st_size / 1e6:.2f} MB) is {path}")
