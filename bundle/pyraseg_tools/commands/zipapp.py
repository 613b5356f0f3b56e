# SPDX-License-Identifier: Apache-2.0
"""Pack the runtime into one file, which segments with an exported model and needs neither this bundle nor PyTorch.

pyraseg zipapp dist/pyraseg.pyz
pip install -r dist/pyraseg.requirements.txt             (in the environment where it will run)
python pyraseg.pyz MODEL INPUT OUTPUT
"""

import argparse
from pathlib import Path

from bundle.pyraseg.commands import command_parser
from bundle.pyraseg.core import write_text
from bundle.pyraseg.deployment import requirements, write_zipapp


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("zipapp", __doc__)
    parser.add_argument("output", type=Path, nargs="?", default=Path("dist/pyraseg.pyz"), help="default: %(default)s")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    path = arguments(argv).output
    count = write_zipapp(path)
    listed = path.with_suffix(".requirements.txt")
    write_text(listed, "\n".join(requirements()) + "\n")
    print(f"{path}: {count} modules, {path.stat().st_size / 1e3:.0f} kB; its requirements are in {listed}")
