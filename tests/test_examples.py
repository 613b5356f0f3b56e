# SPDX-License-Identifier: Apache-2.0
"""The examples in docstrings do what they show."""

import doctest
import importlib

import pytest

from tests.helpers.commands import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "bundle").rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted and not result.failed


def test_the_main_names_have_examples():
    assert len(MODULES) >= 15
