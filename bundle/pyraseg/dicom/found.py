# SPDX-License-Identifier: Apache-2.0
"""DICOM files that were opened before: their paths with the headers that were read, lest they are opened again."""

import os
import pickle
import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.wanted import ChosenPath

#: Size in bytes and time of the last change in ns: what tells a file from one that has replaced it.
Stamp = tuple[int, int]


class FoundFile(str):
    """The path of a DICOM file with its header, compressed to a few kB.

    Being a string, it goes where a path goes: through MONAI's `LoadImage` (with `expanduser` false), through torch's
    collating, and to other processes.

    Attributes:
        stamp: of the file when it was read.
        patient: a hash of what names the patient in the file, or nothing.
        complete: the header is all that stands before the pixels, not only what a scan reads.
        phase: number of the phase that the file was found for, 0 where its series has none or all are meant.
        frames: which of its frames are in that phase, from 0; None for all.
    """

    stamp: Stamp
    patient: str
    complete: bool
    phase: int = 0
    frames: tuple[int, ...] | None = None
    _packed: bytes

    @classmethod
    def of(cls, file: str | Path, header: Dataset, stamp: Stamp, *, patient: str, complete: bool) -> "FoundFile":
        """Keep the header of a file that was read."""
        found = cls(file)
        found.stamp, found.patient, found.complete = stamp, patient, complete
        found._packed = zlib.compress(pickle.dumps(header), 1)  # as pydicom has it: nothing is converted or encoded
        return found

    def in_phase(self, number: int, frames: Sequence[int]) -> "FoundFile":
        """Return the file as one of a phase, which has some of its frames."""
        other = FoundFile(self)
        other.__dict__.update(self.__dict__, phase=number, frames=tuple(frames))
        return other

    @property
    def header(self) -> Dataset:
        """Return a new copy of the header."""
        return pickle.loads(zlib.decompress(self._packed))


def as_file(path: str | os.PathLike) -> Path | FoundFile | ChosenPath:
    """Return what a path is to be opened by: a found file, or one with a choice, as it is, any other as a `Path`."""
    return path if isinstance(path, FoundFile | ChosenPath) else Path(path).expanduser()


def are_found(path: str | os.PathLike | Sequence[str | os.PathLike]) -> bool:
    """Return whether a path is, or several are, found files: their complete headers are then worth keeping."""
    return isinstance(path if isinstance(path, str | os.PathLike) else path[0], FoundFile)


def phase_of(path: str | os.PathLike | Sequence[str | os.PathLike]) -> int:
    """Return the number of the phase that a path stands for, 0 where it is not said."""
    first = path if isinstance(path, str | os.PathLike) else path[0]
    return int(first.phase or 0) if isinstance(first, FoundFile | ChosenPath) else 0


@contextmanager
def opened(file: str | os.PathLike, stamp: Stamp | None = None) -> Generator[tuple[BinaryIO, Stamp]]:
    """Open a file to read, once; yield it with its stamp.

    Args:
        file: what to open.
        stamp: of the file when its header was read; that of a `FoundFile` is known.

    Raises:
        PyrasegError: it was replaced or written to since.
    """
    stamp = file.stamp if isinstance(file, FoundFile) else stamp
    with open(file, "rb") as stream:
        status = os.fstat(stream.fileno())
        now = status.st_size, status.st_mtime_ns
        if stamp is not None and stamp != now:
            raise PyrasegError(
                f"{file} has changed since it was found: it had {stamp[0]} bytes, has {now[0]}, and was rewritten. "
                "Run again when its series is complete."
            )
        yield stream, now
