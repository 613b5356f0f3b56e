# SPDX-License-Identifier: Apache-2.0
"""Train a task: in stages, with validation, keeping the best model.

pyraseg train
pyraseg train dermoscopy --dataset_dir data/drawn --epochs 20 --device cuda

The first command trains the default task on a phantom CT study, which it creates. Records are written to runs/, the
model to models/, both below the current folder. Every option is a key of the configs. A mistyped option stops the run,
and the message names the nearest key. `python -m monai.bundle run training --config_file configs/train.json` does the
same as the first command.
"""

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.commands.options import add_configs, split_options
from bundle.pyraseg.commands.places import config_files
from bundle.pyraseg.commands.run import run_config


def arguments(argv: list[str] | None = None) -> tuple:
    parser = command_parser("train", __doc__)
    add_configs(parser, "train")
    return split_options(parser, argv)


def main(argv: list[str] | None = None) -> None:
    options, settings = arguments(argv)
    run_config("training", *config_files(options.tasks), settings)
