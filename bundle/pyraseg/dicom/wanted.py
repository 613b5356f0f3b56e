# SPDX-License-Identifier: Apache-2.0
"""Which series a text means: by its number, its description or its UID; and a path that says which one is meant."""

import re
import shlex
from collections.abc import Collection, Sequence
from os import PathLike
from typing import Any, Protocol, TypeVar

from bundle.pyraseg.core import PyrasegError

#: Stands for every phase, each an input of its own.
ALL_PHASES = "all"

MOST_LISTED = 6  # series that a message lists


class Named(Protocol):
    """What a text may stand for: a series of files, or of a PACS."""

    def is_meant(self, wanted: Sequence[str]) -> bool:
        """Return whether it is one of those that texts stand for."""


NamedSeries = TypeVar("NamedSeries", bound=Named)


def read_wanted(series: Any) -> list[str]:
    """Return the texts that stand for series: one, several with a semicolon between them, or a list of such.

    A number, as a command line may read it, is a text. Nothing stands for every series.

    >>> read_wanted("5; portal*"), read_wanted(5), read_wanted(None)
    (['5', 'portal*'], ['5'], [])
    """
    given = [] if series is None else list(series) if isinstance(series, list | tuple) else [series]
    return [part for text in given for part in map(str.strip, str(text).split(";")) if part]


def is_meant(wanted: Sequence[str], *, uids: Collection[str], number: str, description: str) -> bool:
    """Return whether a series is one of those that texts stand for.

    A text is the series' UID, its number, or its description, in which * and ? stand for any letters; capitals and
    the width of spaces do not count.

    >>> is_meant(["portal*"], uids=["1.2.3"], number="5", description="Portal  venous 1.5 mm")
    True
    >>> is_meant(["T2 ::2"], uids=["1.2.3"], number="5", description="T2 #2")
    True
    >>> is_meant(["05"], uids=["1.2.3"], number="5", description="")
    True
    """
    text = _folded(description)
    for one in wanted:
        parts = re.split(r"([*?])", _folded(one))
        pattern = "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts)
        same_number = one.isdecimal() and number.isdecimal() and int(one) == int(number)
        if one in uids or same_number or (text and re.fullmatch(pattern, text)):
            return True
    return False


def those_meant(
    series: Sequence[NamedSeries], wanted: Sequence[str], where: str | PathLike[str], *, any_of: bool = False
) -> list[NamedSeries]:
    """Return those of some series that texts stand for; all where there is no text.

    Args:
        series: to choose from.
        wanted: the texts.
        where: they lie, for messages.
        any_of: one text that stands for a series is enough, as where each case has its own of several.

    Raises:
        PyrasegError: a text stands for none of the series; with `any_of`, all do.
    """
    missed = [one for one in wanted if not any(own.is_meant([one]) for own in series)]
    if missed and (not any_of or len(missed) == len(wanted)):
        more = f"; and {len(series) - MOST_LISTED} more" * (len(series) > MOST_LISTED)
        listed = "; ".join(map(str, series[:MOST_LISTED])) + more
        raise PyrasegError(
            f"--series {shlex.quote(';'.join(missed))} means none of the series in {where}: {listed or 'it has none'}. "
            "Give the number, the description (* stands for a semicolon in it) or the UID of one; `pyraseg list` shows "
            "them."
        )
    return [one for one in series if not wanted or one.is_meant(wanted)]


def _folded(text: str) -> str:
    return " ".join(text.casefold().replace("#", "::").split())  # as MONAI's configs have what is typed


class ChosenPath(str):
    """The path of an image with which of the DICOM series there is meant, which slices of it, and which phase.

    Being a string, it goes where a path goes: through data lists, MONAI's `LoadImage` (with `expanduser` false), and to
    other processes.

    Attributes:
        series: as `read_wanted` takes it; "" for the only one.
        select: as `read_selection` takes it; "" for all its slices.
        phase: its number, as a text; "" for the only one.
    """

    series: str
    select: str
    phase: str

    def __new__(cls, path: str | PathLike[str], *, series: str = "", select: str = "", phase: str = "") -> "ChosenPath":
        chosen = super().__new__(cls, path if isinstance(path, str) else path.__fspath__())
        chosen.series, chosen.select, chosen.phase = series, select, phase
        return chosen


def read_phase(phase: Any) -> int | str:
    """Return which phase is meant: a number from 1, `ALL_PHASES`, or "" for none.

    Raises:
        PyrasegError: it is something else.

    >>> read_phase("3"), read_phase(3), read_phase(" All "), read_phase(None)
    (3, 3, 'all', '')
    """
    written = "" if phase is None else str(phase).strip().lower()
    if written in ("", ALL_PHASES):
        return written
    if not isinstance(phase, bool) and written.isdecimal() and int(written) > 0:
        return int(written)
    raise PyrasegError(f"The option phase is a number from 1 on, or all, not {phase!r}.")
