# SPDX-License-Identifier: Apache-2.0
"""Find the MONAI objects that are building a component, and the bundle's root."""

import inspect
from pathlib import Path
from typing import TypeVar

from monai.bundle import ConfigWorkflow

T = TypeVar("T")


def calling(kind: type[T]) -> T | None:
    """Return the nearest object of a type that has a method on the call stack, or None.

    MONAI hands a component neither the parser that builds it nor the workflow that runs it; both are its callers.
    """
    frame = inspect.currentframe()
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, kind):
            return candidate
        frame = frame.f_back
    return None


def bundle_root() -> str:
    """Return the folder above the `configs/` that is being run, whatever the current directory is.

    Where no workflow runs (MONAI's verify and export commands parse a config alone) it is the current directory, which
    is MONAI's own convention.
    """
    workflow = calling(ConfigWorkflow)
    configs = workflow.config_root_path if workflow is not None else Path("configs")
    return str(configs.resolve().parent)
