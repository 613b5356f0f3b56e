# SPDX-License-Identifier: Apache-2.0
"""Calibrate the probabilities of a trained model: fit a temperature on the validation part of its data.

pyraseg calibrate
pyraseg calibrate dermoscopy --dataset_dir data/drawn --model_file models/mine.pt

writes the temperature next to the model. `segment` and `export` find it there. Every option is a key of the configs.
`python -m monai.bundle run calibrating --config_file "['configs/train.json','configs/calibrate.json']"` does the same
as the first command.
"""

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.commands.options import add_configs, split_options
from bundle.pyraseg.commands.places import config_files
from bundle.pyraseg.commands.run import run_config


def arguments(argv: list[str] | None = None) -> tuple:
    parser = command_parser("calibrate", __doc__)
    add_configs(parser, "train")
    return split_options(parser, argv)


def main(argv: list[str] | None = None) -> None:
    options, settings = arguments(argv)
    run_config("calibrating", *config_files(options.tasks, program="calibrate"), settings)
