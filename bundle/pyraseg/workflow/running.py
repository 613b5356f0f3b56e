# SPDX-License-Identifier: Apache-2.0
"""What a component asks of the MONAI workflow that builds it: where the bundle is, and whether all options are used."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from bundle.pyraseg.workflow.config import require_kind, require_used


def caller(*methods: Callable) -> Any:
    """Return the object one of whose methods, of the given ones, is building a component right now, or None.

    MONAI 1.6.1 hands a component neither the parser that builds it nor the workflow that runs it, and no other way
    leads to them: `monai.bundle run` takes a workflow class of ours only with one more argument; an expression sees
    modules and resolved values alone; the macro `%` of a whole config builds each of its components a second time; and
    `_meta_` does not say where it was read. Both are callers of the component. So this follows the call stack to
    MONAI's own functions, told by their code, and is the only place that does; a MONAI without these functions fails
    where they are named below. What a config can hand on as an argument does not come here.
    """
    codes = [method.__code__ for method in methods]
    frame = inspect.currentframe()
    while frame is not None and frame.f_code not in codes:
        frame = frame.f_back
    return frame and frame.f_locals["self"]


def running_parser() -> ConfigParser:
    """Return the parser, with the merged config, that is building a component."""
    parser = caller(ConfigParser.get_parsed_content)
    if parser is None:
        raise RuntimeError("This finds its config through the parser that builds it: name it in a config.")
    return parser


def bundle_root() -> str:
    """Return the folder above the `configs/` that is being run, whatever the current directory is.

    Where no workflow runs (MONAI's verify and export commands parse a config alone) it is the current directory, which
    is MONAI's own convention.
    """
    workflow = caller(ConfigWorkflow._run_expr, ConfigWorkflow._get_property)
    configs = workflow.config_root_path if workflow is not None else Path("configs")
    return str(configs.resolve().parent)


def check_config() -> None:
    """Refuse the running config where nothing uses one of its keys, or its images are of another kind than it says.

    It stands first in the run list.

    Raises:
        PyrasegError: see `require_used` and `require_kind`.
    """
    parser = running_parser()
    require_used(parser)
    require_kind(parser)
