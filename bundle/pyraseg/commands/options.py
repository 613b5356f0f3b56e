# SPDX-License-Identifier: Apache-2.0
"""The command line of a program that has configs: options of its own, keys of the configs, tasks."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from bundle.pyraseg.commands.places import home
from bundle.pyraseg.core import PyrasegError, nearest_hint


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
    given = parser.parse_args(own)
    if not others:
        return given, {}
    from bundle.pyraseg.workflow import parse_options  # it loads MONAI, which a command without options may not need

    return given, parse_options(others)


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
