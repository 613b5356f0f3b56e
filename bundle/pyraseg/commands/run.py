# SPDX-License-Identifier: Apache-2.0
"""Run configs as `python -m monai.bundle run` does, with options of the command line set in them."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from bundle.pyraseg.commands.places import config_files, shipped
from bundle.pyraseg.workflow import parse_options, read_config, verbatim


def split_options(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict]:
    """Return what a command takes itself, and the options `--key value` that are for its config.

    Args:
        parser: of what the command takes.
        argv: its arguments.
    """
    own, others, left = [], [], list(argv or [])
    while left:
        word = left.pop(0)
        if not word.startswith("--") or word.partition("=")[0] in parser._option_string_actions:
            own.append(word)
            continue
        others.append(word)
        if "=" not in word and left and not left[0].startswith("--"):
            others.append(left.pop(0))
    return parser.parse_args(own), parse_options(others)


def add_configs(parser: argparse.ArgumentParser, program: str) -> None:
    """Let a command take the names of tasks and files of configs."""
    parser.add_argument(
        "tasks",
        nargs="*",
        metavar="TASK",
        help=f"task, or config file, merged into configs/{program}.json in this order",
    )


def run_config(run_id: str, files: Sequence[Path], root: Path, options: Mapping[str, Any]) -> None:
    """Run the expressions of a run id.

    Args:
        run_id: such as "training".
        files: the configs, in the order in which they are merged.
        root: folder of `data/`, `models/` and `runs/`.
        options: values by their keys, and settings of MONAI's workflow, such as `tracking`.
    """
    settings = {"bundle_root": verbatim(root), "run_id": run_id, **options}
    workflow = ConfigWorkflow([str(file) for file in files], **settings)
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def run_trained(run_id: str, names: Sequence[str], options: Mapping[str, Any], *, program: str) -> None:
    """Run a program on a trained model: that of the current folder, else the included one."""
    files, root = config_files(names, program=program)
    if "model_file" not in options:
        model = trained_model(read_config(files, {"bundle_root": verbatim(root)}))
        options = {**options, "model_file": verbatim(model)}
    run_config(run_id, files, root, options)


def trained_model(config: ConfigParser) -> Path:
    """Return the file of weights that a config names, or, where it is not there, the shipped one of the same name."""
    model = Path(config.get_parsed_content("model_file"))
    came_along = shipped() / "models" / model.name
    return came_along if not model.is_file() and came_along.is_file() else model
