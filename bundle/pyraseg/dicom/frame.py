# SPDX-License-Identifier: Apache-2.0
"""One frame before its pixels are read, its values in words, and what several lack to be one stack."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from bundle.pyraseg.dicom.found import Stamp
from bundle.pyraseg.dicom.geometry import DUPLICATE_DISTANCE, Plane
from bundle.pyraseg.dicom.headers import frame_value
from bundle.pyraseg.dicom.pixels import MONOCHROME

#: Characters of a value, and values of a list, that a message shows.
LONGEST, MOST = 48, 12
#: Of longer lists, as of a time for each slice, so many values are enough.
SOME = 4
#: A time of day, with or without its date, and other long numbers that are texts: all their digits count.
_LONG = re.compile(r"([0-9]{6,})(?:\.([0-9]*))?")


@dataclass(frozen=True, eq=False)
class Frame:
    """Hold one frame before its pixels are read: `index` counts from 0 in its file, `stamp` tells if that changes."""

    file: Path
    header: Dataset
    index: int
    plane: Plane | None
    inverted: bool
    stamp: Stamp

    def value(self, keyword: str) -> object:
        return plain(frame_value(self.header, self.index, keyword))

    @property
    def is_color(self) -> bool:
        return self.header.get("PhotometricInterpretation") not in MONOCHROME


#: What must be the same in all slices of a stack, by the name that a message gives it.
FACTS: dict[str, Callable[[Frame], object]] = {
    "image sizes": lambda frame: f"{frame.header.Rows}x{frame.header.Columns}",
    "gray and color images": lambda frame: "color" if frame.is_color else "gray",
    "polarities": lambda frame: "inverted" if frame.inverted else "not inverted",
    "frames of reference": lambda frame: frame.value("FrameOfReferenceUID") if frame.plane else None,
    "orientations": lambda frame: frame.plane,
    "pixel spacings": lambda frame: frame.plane,
}
#: Which planes have the same of it, where equal numbers are too much to ask for.
_ALIKE: dict[str, Callable[[Plane, Plane], bool]] = {
    "orientations": Plane.is_parallel,
    "pixel spacings": Plane.has_spacing_of,
}


def mixture(frames: Sequence[Frame], *, ignored: Collection[str] = ()) -> tuple[str, dict[str, list[Frame]]] | None:
    """Return in which of `FACTS` frames differ, and which have which, or None where they can be one stack.

    Args:
        frames: that a stack is to be made of.
        ignored: names of facts that do not count.
    """
    for name, fact in FACTS.items():
        if name in ignored:
            continue
        alike = _ALIKE.get(name)
        known: list[Plane] = []
        groups: dict[str, list[Frame]] = defaultdict(list)
        for frame in frames:
            value = fact(frame)
            if value in (None, ""):
                continue
            if isinstance(value, Plane) and alike is not None:
                first = next((plane for plane in known if alike(plane, value)), None)
                if first is None:
                    known.append(first := value)
                value = first.orientation if name == "orientations" else first.pixel_spacing
            groups[text(value)].append(frame)
        if len(groups) > 1:
            return name, dict(groups)
    return None


def places(frames: Sequence[Frame]) -> np.ndarray:
    """Return for each of parallel frames the number of its place along their normal, (N,), from 0."""
    planes = [frame.plane for frame in frames if frame.plane is not None]
    row, column = np.reshape(planes[0].orientation, (2, 3))
    distances = np.array([plane.position for plane in planes]) @ np.cross(row, column)
    order = np.argsort(distances, kind="stable")
    result = np.empty(len(frames), dtype=int)
    result[order] = np.cumsum(np.diff(distances[order], prepend=-np.inf) >= DUPLICATE_DISTANCE) - 1
    return result


def plain(value: Any) -> Any:
    """Turn a header value into plain Python: str, int, float, tuple or None. A text of digits, as a time, stays one."""
    if isinstance(value, MultiValue | list | tuple):
        return tuple(plain(v) for v in value)
    if isinstance(value, bool | type(None)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value)
    try:
        return float(value)  # Decimal, where pydicom is set to use it
    except (TypeError, ValueError):
        return str(value)


def comparable(value: Any) -> Any:
    """Make equal what a user would call equal: 2, 2.0 and "2"; ("A", "B") and ["A", "B"]; ("A",) and "A".

    >>> comparable("093000.120") == comparable("093000.12"), comparable("093000.12") == comparable("093000.14")
    (True, False)
    """
    if isinstance(value, tuple):
        return comparable(value[0]) if len(value) == 1 else tuple(comparable(v) for v in value)
    if isinstance(value, str) and (time := _LONG.fullmatch(value.strip())):
        whole, fraction = time[1].lstrip("0") or "0", (time[2] or "").rstrip("0")
        return f"{whole}.{fraction}" if fraction else whole
    try:
        return _number(float(value))
    except (TypeError, ValueError):
        return str(value).strip().upper().replace("#", "::") if value is not None else ""  # as MONAI's configs have it


def text(value: object) -> str:
    """Return a value as a user types it to choose it."""
    if isinstance(value, tuple | list):
        return "\\".join(map(text, value))
    return "none" if value in (None, "") else _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    """Return a number in digits that tell it apart: rounding of 32 bits is none, a time of day has more."""
    return f"{value:.6g}" if abs(value) < 1e4 else f"{value:.12g}"


def short(value: str) -> str:
    """Return a text in the length that a message bears."""
    return value if len(value) <= LONGEST else f"{value[: LONGEST - 3]}..."


def counted(number: int, noun: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "slice"), counted(2, "slice")
    ('1 slice', '2 slices')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def tally(values: Iterable[object]) -> str:
    """Return which values there are and how often, the first of them."""
    counts = Counter(text(value) for value in values)
    listed = [f"{short(value)} ({count})" for value, count in sorted(counts.items())]
    shown = listed if len(listed) <= MOST else listed[:SOME]
    return ", ".join(shown) + (f" and {len(listed) - SOME} more" if len(listed) > MOST else "")


def names_of(frames: Sequence[Frame]) -> str:
    """Return the names of the files of frames, the first three of them."""
    names = list(dict.fromkeys(frame.file.name for frame in frames))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
