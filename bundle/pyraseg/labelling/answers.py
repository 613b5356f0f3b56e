# SPDX-License-Identifier: Apache-2.0
"""What a client of the label server reads when something is wrong."""

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from fastapi import HTTPException

from bundle.pyraseg.errors import PyrasegError

logger = logging.getLogger(__name__)
Arguments, Result = ParamSpec("Arguments"), TypeVar("Result")


def told(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let the client read what is wrong, in place of `Internal Server Error`."""

    @functools.wraps(method)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return method(*args, **kwargs)
        except PyrasegError as error:
            logger.warning("%s", error)
            raise HTTPException(status_code=400, detail=str(error)) from error

    return call
