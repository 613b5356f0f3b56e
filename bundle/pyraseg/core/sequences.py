# SPDX-License-Identifier: Apache-2.0
"""An image of several sequences, such as T1 and FLAIR: where each of them is."""

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

#: What one sequence is read from: a path, or the files of a series; None where the case lacks it.
Part = str | PathLike[str] | Sequence[str | PathLike[str]] | None


class SequencePaths(str):
    """The path of the first sequence of a case, with what every sequence is read from.

    Being a string, it goes where the path of an image goes, and stands for the case by its first sequence: through data
    lists, MONAI's `LoadImage` (with `expanduser` false), and to other processes.

    Attributes:
        parts: for each sequence by its name, the first one first, its path, the files of its series, or None where the
            case lacks it.

    >>> image = SequencePaths({"t1": "study/t1", "flair": "study/flair"})
    >>> print(image, list(image.parts))
    study/t1 ['t1', 'flair']
    """

    parts: dict[str, Part]

    def __new__(cls, parts: Mapping[str, Part]) -> "SequencePaths":
        first = next(iter(parts.values()))
        files = [first] if isinstance(first, str | PathLike) else list(first or ())
        if not files:
            raise ValueError("The first sequence stands for the case, so it cannot be missing.")
        paths = super().__new__(cls, str(files[0]))
        paths.parts = dict(parts)
        return paths

    def __reduce__(self) -> tuple[type["SequencePaths"], tuple[dict[str, Part]]]:
        return type(self), (self.parts,)

    @property
    def missing(self) -> list[str]:
        """Return the names of the sequences that the case lacks."""
        return [name for name, part in self.parts.items() if part is None]


def first_image(image: Any) -> Any:
    """Return what the first sequence of an image is read from; an image of one sequence as it is."""
    return next(iter(image.parts.values())) if isinstance(image, SequencePaths) else image


def image_files(image: Any) -> Iterator[str]:
    """Yield the files and folders that an image is read from: those of all sequences that there are.

    >>> list(image_files(SequencePaths({"t1": "t1.nii", "t2": None, "flair": ["1.dcm", "2.dcm"]})))
    ['t1.nii', '1.dcm', '2.dcm']
    >>> list(image_files("t1.nii"))
    ['t1.nii']
    """
    parts = image.parts.values() if isinstance(image, SequencePaths) else [image]
    for part in parts:
        if part is not None:
            yield from [str(part)] if isinstance(part, str | PathLike) else map(str, part)
