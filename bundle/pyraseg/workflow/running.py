# SPDX-License-Identifier: Apache-2.0
"""What a run asks of the MONAI workflow that builds its components, and what a user sees of it.

It asks where the bundle is, and whether all options are used. A user sees errors that can be mended without a
traceback, notes, and no notices about unused readers.
"""

import inspect
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from bundle.pyraseg.core import begin_run, first_to_fail, keep_memory, mendable
from bundle.pyraseg.workflow.config import require_as_typed, require_kind, require_used, require_values

logger = logging.getLogger(__name__)


def plain_console() -> None:
    """Print a `PyrasegError` that ends the program as its message alone, whatever MONAI wrapped around it.

    Called first by every config. Other errors keep their traceback, and so does a `PyrasegError` where the environment
    variable `PYRASEG_TRACEBACK` is set. Of several processes the first to fail tells: the others fail of the same
    or of its end. The exit code is 1 either way.
    """
    sys.excepthook = print_plainly
    # LoadImage builds every reader that MONAI knows, although our configs name theirs; this one warns.
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")


def print_plainly(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print an error that ends the program; see `plain_console`."""
    if not first_to_fail():
        return
    cause = mendable(error)
    if cause is None or os.environ.get("PYRASEG_TRACEBACK"):
        sys.__excepthook__(kind, error, traceback)
    else:
        print(f"pyraseg: {cause}", file=sys.stderr)


def warn(message: str) -> None:
    """Log what a config has to say against itself, such as that nobody has tried it."""
    logger.warning(message)


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
    """Refuse the running config: a key that nothing uses, a value of a wrong kind, images of another kind than it says.

    It stands in `initialize`, before anything takes a value of the config, and begins the run: what it reads from here
    on is an input, see `protect`.

    Raises:
        PyrasegError: see `require_as_typed`, `require_used`, `require_values` and `require_kind`.
    """
    keep_memory()
    parser = running_parser()
    if Path(sys.argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py"):
        require_as_typed(sys.argv[1:])
    require_used(parser)
    require_values(parser)
    require_kind(parser)
    begin_run()
