# SPDX-License-Identifier: Apache-2.0
"""What `bundle.pyraseg.packaging.verification` returns, and publishing starts from."""

from typing import Any, NamedTuple


class Verified(NamedTuple):
    """A package that was verified: its name, its metadata and its files, by path in it."""

    name: str
    metadata: dict[str, Any]
    files: dict[str, bytes]

    @property
    def title(self) -> str:
        return f"{self.name} {self.metadata['version']}"
