# SPDX-License-Identifier: Apache-2.0
"""Score a trained model on the test part of its data set, which was used neither for training nor for model selection.

pyraseg evaluate
pyraseg evaluate dermoscopy --dataset_dir data/drawn --output_dir runs/drawn_evaluation

writes scores.csv, summary.json and report.html. Every option is a key of the configs.
`python -m monai.bundle run evaluating --config_file "['configs/train.json','configs/evaluate.json']"` does the same as
the first command.
"""

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.commands.options import add_configs, split_options
from bundle.pyraseg.commands.run import run_trained


def arguments(argv: list[str] | None = None) -> tuple:
    parser = command_parser("evaluate", __doc__)
    add_configs(parser, "train")
    return split_options(parser, argv)


def main(argv: list[str] | None = None) -> None:
    options, settings = arguments(argv)
    run_trained("evaluating", options.tasks, settings, program="evaluate")
