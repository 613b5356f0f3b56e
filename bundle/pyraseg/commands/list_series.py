# SPDX-License-Identifier: Apache-2.0
"""List the DICOM series and other images in a folder: what would be segmented, under which name, and what not, and why.

pyraseg list studies

Each series has a line with the name of its results, its modality, number, description, body part, size, spacing and
UID. Below it stands which phases can be chosen with --phase and what numbers them, which echoes or stacks with
--select, and why a series is not read. Headers are read, and pixels only where slices in one place seem to be stored
twice. Programs that take --series choose a series by its number, its description ('portal*') or its UID.

Names and IDs of patients and physicians are not shown: their words in a description are replaced by ***.
"""

import argparse
import json
from pathlib import Path

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.runtime import list_inputs


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("list", __doc__)
    parser.add_argument("input", type=Path, metavar="IN", help="a folder, searched recursively, or one file")
    parser.add_argument("--json", action="store_true", help="print JSON, with every file, choice and note")
    parser.add_argument("--series", default="", help="list these series alone: number, description or UID")
    parser.add_argument("--select", nargs="+", default=[], metavar="KEYWORD=VALUE",
                        help="show what --select would read, such as EchoTime=4.6")  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    found = list_inputs(options.input, series=options.series, select=options.select)
    print(json.dumps(found.as_dict(), indent=1, ensure_ascii=False) if options.json else "\n".join(found.lines()))
