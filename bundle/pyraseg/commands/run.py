# SPDX-License-Identifier: Apache-2.0
"""Run configs as `python -m monai.bundle run` does, with options of the command line set in them."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from bundle.pyraseg.commands.places import config_files, home, shipped
from bundle.pyraseg.core import PyrasegError, freeing, nearest_hint, protecting_inputs
from bundle.pyraseg.workflow import parse_options, read_config, verbatim


def split_options(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict]:
    """Return what a command takes itself, and the options `--key value` that are for its config.

    An option of the command is one with underscores, too, as the keys of configs have them.

    Args:
        parser: of what the command takes.
        argv: its arguments.

    Raises:
        PyrasegError: an option is neither, and the nearest name is one of the command's own.
    """
    own, others, left = [], [], list(argv or [])
    takes = {name for name in parser._option_string_actions if name.startswith("--")}
    keys = {key.partition("#")[0].removeprefix("+") for file in _all_configs() for key in file}
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if name.startswith("--") and name not in takes and name.replace("_", "-") in takes:
            name = name.replace("_", "-")
        if not word.startswith("--") or name in takes:
            own.append(name + equals + value)
            continue
        key = name.removeprefix("--")
        hint = nearest_hint(key, keys | {one.removeprefix("--") for one in takes})
        if key.partition("#")[0] not in keys and any(f"{one.removeprefix('--')!r}" in hint for one in takes):
            raise PyrasegError(f"{parser.prog} has no option --{key}.{hint} Nothing was run.")
        others.append(word)
        if "=" not in word and left and not left[0].startswith("--"):
            others.append(left.pop(0))
    return parser.parse_args(own), parse_options(others)


def _all_configs() -> list[dict[str, Any]]:
    """Return the content of the configs that tasks are made of."""
    files = [file for file in (home() / "configs").glob("*.json") if not file.name.endswith("metadata.json")]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def add_configs(parser: argparse.ArgumentParser, program: str) -> None:
    """Let a command take the names of tasks and files of configs."""
    parser.add_argument(
        "tasks",
        nargs="*",
        metavar="TASK",
        help=f"task, or config file, merged into configs/{program}.json in this order",
    )


def run_config(run_id: str, files: Sequence[Path], root: Path, options: Mapping[str, Any]) -> None:
    """Run the expressions of a run id; what the command has read before is an input of the same run.

    Args:
        run_id: such as "training".
        files: the configs, in the order in which they are merged.
        root: folder of `data/`, `models/` and `runs/`.
        options: values by their keys, and settings of MONAI's workflow, such as `tracking`.
    """
    settings = {"bundle_root": verbatim(root), "run_id": run_id, **options}
    workflow = ConfigWorkflow([str(file) for file in files], **settings)
    with protecting_inputs(), freeing():
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
