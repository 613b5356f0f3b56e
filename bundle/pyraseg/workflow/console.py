# SPDX-License-Identifier: Apache-2.0
"""What a user sees of a run: errors that can be mended without a traceback, notes, no notices about unused readers."""

import logging
import os
import sys
import warnings
from types import TracebackType

from bundle.pyraseg.core import first_to_fail, mendable

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
