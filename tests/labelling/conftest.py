# SPDX-License-Identifier: Apache-2.0
"""The package that the tests of packaging make."""

from tests.packaging.conftest import package as package
