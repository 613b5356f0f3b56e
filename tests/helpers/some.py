# SPDX-License-Identifier: Apache-2.0
"""Many values of a parameter, a few of which are tested each time."""

from collections.abc import Container, Iterable
from typing import Any

import pytest


def some_slow(values: Iterable[Any], quick: Container[Any]) -> list[Any]:
    """Return the values for `parametrize`; those that are not among the quick ones are slow."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]
