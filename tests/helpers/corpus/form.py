# SPDX-License-Identifier: Apache-2.0
"""One form in which scanners write images: how to make an example, what lies in it, and what reading it should do."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

#: mm by which places may differ: positions in headers are decimal strings.
CLOSE = 0.01


@dataclass(frozen=True)
class Plane:
    """Where a slice lies, as PS3.3 C.7.6.2.1.1 has it: LPS mm of the first pixel, cosines, spacing."""

    position: tuple[float, float, float]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]

    @property
    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors from a pixel to that in the next row and in the next column, mm."""
        row, column = np.reshape(self.orientation, (2, 3))
        return column * self.spacing[0], row * self.spacing[1]


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice as it is meant.

    Attributes:
        values: in the units of the modality, (rows, columns), or RGB (rows, columns, 3).
        plane: its place, if it has any.
        padding: pixels that are padding, (rows, columns) bool, for which other readers have other values.
    """

    values: np.ndarray
    plane: Plane | None
    padding: np.ndarray | None = None

    def points(self) -> np.ndarray:
        """Return the LPS mm of every pixel, (rows, columns, 3)."""
        assert self.plane is not None
        down, right = self.plane.steps
        rows, columns = self.values.shape[:2]
        return self.plane.position + np.arange(rows)[:, None, None] * down + np.arange(columns)[None, :, None] * right

    def is_at(self, other: "Slice") -> bool:
        """Return whether both lie in one place, or have none."""
        if self.plane is None or other.plane is None:
            return self.plane is other.plane
        return self.values.shape == other.values.shape and bool(np.abs(self.points() - other.points()).max() < CLOSE)

    def is_like(self, other: "Slice") -> bool:
        """Return whether both hold the same values: exactly, but for the rounding of 32 bits."""
        return self.values.shape == other.values.shape and bool(
            np.allclose(self.values, other.values, rtol=1e-5, atol=1e-5)
        )


#: Slices that belong together: in the order of their places where they have any, else in the order of reading.
Stack = list[Slice]


def joined(parts: Iterable[Stack]) -> Stack:
    """Return stacks that follow each other as one."""
    return [one for part in parts for one in part]


def is_same(found: Sequence[Slice], meant: Sequence[Slice]) -> bool:
    """Return whether two stacks have the same slices, each in its place once."""
    if len(found) != len(meant):
        return False
    if meant[0].plane is None:
        return all(one.is_at(other) and one.is_like(other) for one, other in zip(found, meant, strict=True))
    return all(sum(one.is_at(other) and one.is_like(other) for other in found) == 1 for one in meant)


#: From a folder, the message and a folder to work in to what shall be read then: a path, and options of `read_series`.
Remedy = Callable[[Path, str, Path], list[tuple[object, dict]]]


@dataclass(frozen=True, eq=False)
class Form:
    """A form in which images are written.

    Attributes:
        name: for the table.
        makers: who writes it so.
        write: writes an example into a folder and returns the stacks that lie in it.
        happens: what a user sees, for the table.
        warns: words of the warning that reading it gives.
        refused: words of the message that refuses it, where it is refused; then
        remedy: takes the message literally.
        options: of `read_series`, where it is read as no other reader does.
    """

    name: str
    makers: str
    write: Callable[[Path], list[Stack]]
    happens: str = "read"
    warns: str = ""
    refused: tuple[str, ...] = ()
    remedy: Remedy | None = None
    options: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name
