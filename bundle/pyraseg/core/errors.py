# SPDX-License-Identifier: Apache-2.0
"""The one error that a user can mend, and what is said of any other."""

import importlib
import logging
import os
import traceback
from pathlib import Path
from types import ModuleType

from bundle.pyraseg.core.extras import remedy_for

logger = logging.getLogger(__name__)


class PyrasegError(ValueError):
    """Say what was found, where, and what to do about it.

    Everything that is wrong with a user's input (a path, a file, a header, an option) is raised as this type, so that
    the command line can print the message alone and a caller can tell it from a defect of the program.
    """


class DiskError(PyrasegError, OSError):
    """Say that a disk takes no more: a fault of this machine, and of no file, series or label."""


def mendable(error: BaseException) -> PyrasegError | None:
    """Return the `PyrasegError` that an error is or was raised from, or None.

    MONAI raises a `RuntimeError` of its own from whatever a component or a transform raises. A package that is missing
    is one, too, where an extra brings it.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, PyrasegError):
        if isinstance(cause, ModuleNotFoundError) and (remedy := remedy_for(str(cause.name))):
            return PyrasegError(remedy)
        cause = cause.__cause__
    return cause


def require(module: str) -> ModuleType:
    """Return a module of an extra.

    Raises:
        PyrasegError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise PyrasegError(remedy_for(module) or f"{module} is missing: pip install {module}.") from error


def root_of(error: BaseException) -> BaseException:
    """Return what an error was raised from in the first place."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def describe(error: BaseException) -> str:
    """Return what a person has to know of an error that stopped one of many inputs.

    Of an unexpected one that is its type and its place alone: the messages of libraries may quote a header, and with it
    a patient. With the environment variable PYRASEG_TRACEBACK set the whole of it is logged.
    """
    cause = mendable(error)
    if cause is not None:
        return str(cause)
    root = root_of(error)
    if isinstance(root, MemoryError):
        return "there is not enough memory for it. Free some, take a coarser spacing, or leave it out."
    if isinstance(root, OSError) and root.strerror:
        return f"{root.strerror}: {root.filename or 'a file'}."
    if os.environ.get("PYRASEG_TRACEBACK"):
        logger.error("An unexpected error", exc_info=error)
    last = traceback.extract_tb(root.__traceback__)[-1:]
    place = "".join(f" at {Path(frame.filename).name}:{frame.lineno}" for frame in last)
    return f"an unexpected {type(root).__name__}{place}. PYRASEG_TRACEBACK=1 in the environment shows all of it."
