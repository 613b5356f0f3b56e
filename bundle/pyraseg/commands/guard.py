# SPDX-License-Identifier: Apache-2.0
"""Give trained weights a guard, which says which images are unlike those of their training.

pyraseg guard
pyraseg guard dermoscopy --dataset_dir data/dermoscopy

A training does this at its end. The command is for weights of earlier versions, and for new data. The guard goes into
the file of the weights, which are else the same. `export` and `package` take it along: run them anew (docs/guard.md).
Every option is a key of the configs; those of the training have to be the same.
`python -m monai.bundle run guarding --config_file "['configs/train.json','configs/guard.json']"` does the same as the
first command.
"""

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.commands.options import add_configs, split_options
from bundle.pyraseg.commands.places import config_files
from bundle.pyraseg.commands.run import run_config


def arguments(argv: list[str] | None = None) -> tuple:
    parser = command_parser("guard", __doc__)
    add_configs(parser, "train")
    return split_options(parser, argv)


def main(argv: list[str] | None = None) -> None:
    options, settings = arguments(argv)
    run_config("guarding", *config_files(options.tasks, program="guard"), settings)
