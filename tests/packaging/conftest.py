# SPDX-License-Identifier: Apache-2.0
"""The package that these tests share."""

from tests.helpers.packages import package as package
