# SPDX-License-Identifier: Apache-2.0
"""Each test finds the console as it was."""

from tests.helpers.console import restore_console as restore_console
