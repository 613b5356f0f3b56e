# SPDX-License-Identifier: Apache-2.0
"""Draw synthetic photographs of skin with a lesion and its mask, to try the dermoscopy task. They show no real person.

pyraseg draw-photographs data/drawn

writes images/person_NN_a.jpg and masks/person_NN_a_segmentation.png, the same pixels every time.
"""

import argparse
from pathlib import Path

from bundle.pyraseg.commands import command_parser
from bundle.pyraseg_tools.datasets import write_photograph_study


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("draw-photographs", __doc__)
    parser.add_argument("folder", type=Path, help="new folder")
    parser.add_argument("--people", type=int, default=30, help="number of people (default: %(default)s)")
    parser.add_argument("--photographs", type=int, default=2, help="photographs of each person (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2024, help="seed of the drawing (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    names = write_photograph_study(
        options.folder, seed=options.seed, people=options.people, photographs=options.photographs
    )
    print(f"Wrote {len(names)} photographs of {options.people} made-up people, each with a mask, to {options.folder}")
