# SPDX-License-Identifier: Apache-2.0
"""Which program, and which weights, a result is from."""

from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from bundle.pyraseg.core import file_digest


class Algorithm:
    """Identify a segmentation algorithm by name and version, for the headers of what it wrote.

    Args:
        name: of the program.
        model_file: the weights, whose hash is a part of the version.
    """

    def __init__(self, *, name: str, model_file: str | Path) -> None:
        self.name = name
        self.model_file = Path(model_file)

    @cached_property
    def version(self) -> str:
        """Return the version of the package and the first digits of the weights' SHA-256."""
        digest = file_digest(self.model_file)
        return f"{version('pyraseg')}, weights {digest[:12]}"
