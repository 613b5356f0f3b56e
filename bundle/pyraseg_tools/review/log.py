# SPDX-License-Identifier: Apache-2.0
"""The file of all reviews: a line of JSON each, to which lines are only added."""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from bundle.pyraseg.core import DiskError, PyrasegError
from bundle.pyraseg_tools.review.record import Review

logger = logging.getLogger(__name__)


class ReviewLog:
    """Add reviews to a file, and read them.

    Each is one write at the end of the file, so that several programs may add to it. What a program was killed in, or a
    full disk cut short, is a last line without an end: it counts as not written, and the next one begins a line of its
    own. A decision that was changed is a new line; see `latest`.

    Args:
        path: of the file; others cannot read it, where this program makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, review: Review) -> None:
        """Add a review; when this returns, the disk has it.

        Raises:
            DiskError: nothing, or not all, can be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab+", buffering=0, opener=_private) as file:
                line = _end_of_rest(file) + review.line().encode() + b"\n"
                written = file.write(line)
                os.fsync(file.fileno())
        except OSError as error:
            raise DiskError(
                f"The review cannot be added to {self.path}: {error.strerror}. It is not stored."
            ) from error
        if written < len(line):
            raise DiskError(f"The disk of {self.path} is full: the review is not stored. Free some space.")

    def read(self) -> list[Review]:
        """Return all reviews in the order in which they were added; none where there is no file.

        A line that is no JSON was cut short and is left out, with a warning.

        Raises:
            PyrasegError: the file is another one, or cannot be read.
        """
        if not self.path.exists():
            return []
        try:
            lines = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise PyrasegError(f"{self.path} cannot be read: {error.strerror}.") from error
        found, cut = [], []
        for number, line in enumerate(lines, 1):
            try:
                content = json.loads(line) if line else None
            except ValueError:
                cut.append(number)
                continue
            if line:
                found.append(Review.of_line(content, f"Line {number} of {self.path}"))
        if cut and not found:
            raise PyrasegError(f"{self.path} holds no review, but other text. Give the file of the reviews.")
        for number in cut:
            logger.warning("Line %d of %s was cut short while it was written, and is left out", number, self.path)
        return found


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _end_of_rest(file: BinaryIO) -> bytes:
    """Return what ends the line that a killed program has left: nothing, where the file ends with a whole one."""
    if file.seek(0, os.SEEK_END) == 0:
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


def latest(reviews: Iterable[Review]) -> list[Review]:
    """Return the state of each result, its last review, in the order of their times."""
    state = {review.result.uid: review for review in reviews}
    return sorted(state.values(), key=lambda review: (review.time, review.result.uid))
