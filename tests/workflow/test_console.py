# SPDX-License-Identifier: Apache-2.0
"""What a user sees of an error that ends the program."""

import os
import subprocess
import sys

import pytest

from bundle.pyraseg.core.errors import PyrasegError, mendable
from bundle.pyraseg.workflow.running import warn

#: An error as MONAI's `instantiate` and `apply_transform` wrap it.
WRAPPED = """
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.workflow.running import plain_console
plain_console()
try:
    try:
        raise PyrasegError("The folder is empty.")
    except Exception as error:
        raise RuntimeError("applying transform") from error
except Exception as error:
    raise RuntimeError("Failed to instantiate component") from error
"""

DEFECT = """
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.workflow.running import plain_console
plain_console()
1 / 0
"""

DEFECT_WHILE_HANDLING = """
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.workflow.running import plain_console
plain_console()
try:
    raise PyrasegError("The folder is empty.")
except PyrasegError:
    1 / 0
"""


def run(program: str, **environment: str) -> tuple[int, str]:
    clean = {name: value for name, value in os.environ.items() if name != "PYRASEG_TRACEBACK"}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**clean, **environment}, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.slow
def test_a_wrapped_error_of_the_user_is_its_message_alone():
    assert run(WRAPPED) == (1, "pyraseg: The folder is empty.\n")


@pytest.mark.slow
def test_the_traceback_is_there_for_who_asks():
    code, text = run(WRAPPED, PYRASEG_TRACEBACK="1")
    assert code == 1 and text.count("Traceback (most recent call last)") == 3 and "The folder is empty." in text


@pytest.mark.slow
@pytest.mark.parametrize("program", [DEFECT, DEFECT_WHILE_HANDLING])
def test_a_defect_keeps_its_traceback(program):
    code, text = run(program)
    assert code == 1 and "Traceback" in text and text.endswith("ZeroDivisionError: division by zero\n")
    assert "pyraseg: " not in text


def test_mendable_follows_what_an_error_was_raised_from():
    cause = PyrasegError("a")
    wrapped = RuntimeError("b")
    wrapped.__cause__ = cause
    assert mendable(cause) is mendable(wrapped) is cause
    assert mendable(RuntimeError("b")) is None


def test_a_note_is_logged_as_a_warning(caplog):
    warn("Untested on real data.")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "Untested on real data.")
    ]
