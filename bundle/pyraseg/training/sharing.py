# SPDX-License-Identifier: Apache-2.0
"""Handlers that other parts of a config refer to."""

from typing import Protocol, TypeVar

from ignite.engine import Engine


class Handler(Protocol):
    """What can be attached to an engine."""

    def attach(self, engine: Engine) -> None: ...


H = TypeVar("H", bound=Handler)


def shared(handler: H) -> H:
    """Return a handler that has an id of its own in the config.

    MONAI and MONAI Label read the `_target_` of every entry of a list of handlers, so a mere reference cannot be one.
    """
    return handler
