# SPDX-License-Identifier: Apache-2.0
"""The frames of one series in the order of their places, from headers alone, or why they cannot stand in one stack."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.datadict import keyword_dict
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bundle.pyraseg.core import PyrasegError, nearest_hint
from bundle.pyraseg.dicom.found import Stamp
from bundle.pyraseg.dicom.geometry import (
    DUPLICATE_DISTANCE,
    PLANE_ATTRIBUTES,
    Geometry,
    Plane,
    frame_planes,
    stack_geometry,
)
from bundle.pyraseg.dicom.headers import frame_count, frame_value, transfer_syntax
from bundle.pyraseg.dicom.pixels import MONOCHROME, is_inverted
from bundle.pyraseg.dicom.scan import PHASE_KEYWORDS, TOMOGRAPHIC, Scan, Series, find_series

LOGGER = logging.getLogger(__name__)

LARGEST = 0xFFFF  # rows or columns, which are of 16 bits
UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


@dataclass(frozen=True)
class Frame:
    """Hold one frame before its pixels are read: `index` counts from 0 in its file, `stamp` tells if that changes."""

    file: Path
    header: Dataset
    index: int
    plane: Plane | None
    inverted: bool
    stamp: Stamp

    def value(self, keyword: str) -> object:
        return _plain(frame_value(self.header, self.index, keyword))

    @property
    def is_color(self) -> bool:
        return self.header.get("PhotometricInterpretation") not in MONOCHROME


def arrange_series(
    path: str | Path | Sequence[str | Path],
    *,
    series_uid: str | None = None,
    select: Mapping[str, object] | None = None,
) -> tuple[Series, list[Frame], Geometry | None]:
    """Return a series, its frames in order and their geometry, from headers alone; see `series.read_series`."""
    select = dict(select or {})
    for keyword in select:
        if keyword not in keyword_dict:
            raise PyrasegError(
                f"Slices are selected by DICOM keywords, and {keyword!r} is none.{nearest_hint(keyword, keyword_dict)}"
            )
    series = _choose(find_series(path, keywords=select), series_uid)
    frames = _selected(series, _frames_of(series), select)
    _require_uniform(series, frames)
    frames, geometry = _in_order(series, frames)
    if any(header.get("BurnedInAnnotation") == "YES" for header in series.headers):
        LOGGER.warning(
            "Series %s has text burned into its pixels, maybe a name: check the images before you share them", series
        )
    return series, frames, geometry


def _choose(scan: Scan, series_uid: str | None) -> Series:
    listed = "; ".join(map(str, scan.series))
    if series_uid is None:
        if len(scan.series) > 1:
            raise PyrasegError(f"{scan.path} holds {len(scan.series)} series: {listed}. Give each a folder of its own.")
        return scan.series[0]
    for series in scan.series:
        if series.uid == series_uid:
            return series
    raise PyrasegError(f"{scan.path} holds no series {series_uid}. It holds: {listed}.")


def _frames_of(series: Series) -> list[Frame]:
    frames, polarity = [], {}
    for file, header, stamp in zip(series.files, series.headers, series.stamps, strict=True):
        _require_possible(file, header)
        stated = tuple(_plain(header.get(name)) for name in ("PhotometricInterpretation", "PresentationLUTShape"))
        if stated not in polarity:  # asked once for all slices alike, for it may warn
            polarity[stated] = is_inverted(header)
        frames += [
            Frame(file, header, index, plane, polarity[stated], stamp)
            for index, plane in enumerate(frame_planes(header))
        ]
    return frames


def _require_possible(file: Path, header: Dataset) -> None:
    """Refuse sizes that the file is too small for, before anything of those sizes is made."""
    sizes = rows, columns, frames = int(header.Rows), int(header.Columns), frame_count(header)
    least = 8 * frames  # the header of an item in an encapsulated stream
    if transfer_syntax(header) in UNCOMPRESSED:
        least = rows * columns * frames // 8  # one bit a pixel
    if min(sizes) < 1 or max(rows, columns) > LARGEST or least > file.stat().st_size:
        raise PyrasegError(
            f"{file}: the header gives {frames} frames of {rows} x {columns} pixels, which the file of "
            f"{file.stat().st_size} bytes cannot hold. The header is wrong or the file cut short. Export it again."
        )


def _selected(series: Series, frames: list[Frame], select: Mapping[str, object]) -> list[Frame]:
    for keyword, wanted in select.items():
        chosen = [frame for frame in frames if _comparable(frame.value(keyword)) == _comparable(_plain(wanted))]
        if not chosen:
            there = _tally(frame.value(keyword) for frame in frames)
            raise PyrasegError(f"Series {series}: no slice has {keyword} = {wanted}. There are: {there}.")
        frames = chosen
    return frames


def _require_uniform(series: Series, frames: list[Frame]) -> None:
    """Refuse a series whose slices cannot stand in one array, or in one patient."""
    planes = [frame.plane for frame in frames if frame.plane]
    facts: dict[str, Callable[[Frame], object]] = {
        "image sizes": lambda frame: f"{frame.header.Rows}x{frame.header.Columns}",
        "gray and color images": lambda frame: "color" if frame.is_color else "gray",
        "polarities": lambda frame: "inverted" if frame.inverted else "not inverted",
        "frames of reference": lambda frame: frame.value("FrameOfReferenceUID") if planes else None,
        "orientations": lambda frame: next(
            (plane.orientation for plane in planes if frame.plane and plane.is_parallel(frame.plane)), None
        ),
        "pixel spacings": lambda frame: next(
            (plane.pixel_spacing for plane in planes if frame.plane and plane.has_spacing_of(frame.plane)), None
        ),
    }
    for name, fact in facts.items():
        groups: dict[object, list[Frame]] = defaultdict(list)
        for frame in frames:
            if (value := fact(frame)) not in (None, ""):
                groups[value].append(frame)
        if len(groups) > 1:
            found = "; ".join(f"{_text(v)} ({len(g)} of {len(frames)}, {names_of(g)})" for v, g in groups.items())
            raise PyrasegError(
                f"Series {series} in {series.files[0].parent} mixes {name}: {found}. "
                "Move the odd files to a folder of their own, or read one file alone."
            )


def _in_order(series: Series, frames: list[Frame]) -> tuple[list[Frame], Geometry | None]:
    """Sort frames along the normal; refuse missing and duplicate positions."""
    missing = [frame for frame in frames if frame.plane is None]
    several_files = len({frame.file for frame in frames}) > 1
    if missing and (len(missing) < len(frames) or (several_files and series.modality in TOMOGRAPHIC)):
        raise PyrasegError(
            f"Series {series}: {len(missing)} of {len(frames)} slices lack one of {', '.join(PLANE_ATTRIBUTES)} "
            f"({names_of(missing)}), so their place in the stack is unknown. "
            "Export them again, or read each file alone."
        )
    if missing:
        numbers = [(frame.value("InstanceNumber"), frame.index) for frame in frames]
        if len(set(numbers)) == len(numbers) and all(isinstance(number, int) for number, _ in numbers):
            frames = [frame for _, frame in sorted(zip(numbers, frames, strict=True), key=lambda pair: pair[0])]
        return frames, None
    _require_distinct(series, frames)
    geometry, order = stack_geometry([frame.plane for frame in frames if frame.plane is not None])
    frames = [frames[k] for k in order]
    if not geometry.is_evenly_spaced:
        steps = np.diff(geometry.distances)
        widest = int(np.argmax(steps))
        gaps = len(geometry.blocks) - 1
        LOGGER.warning(
            "Series %s is not evenly spaced: %.3f to %.3f mm, %.3f mm between %s and %s; a slice may be missing%s",
            series,
            steps.min(),
            steps.max(),
            steps[widest],
            frames[widest].file,
            frames[widest + 1].file,
            f". It has {gaps} gap{'s' * (gaps > 1)}, of which volumes and surfaces count nothing" if gaps else "",
        )
    return frames, geometry


def _require_distinct(series: Series, frames: list[Frame]) -> None:
    """Refuse slices in the same place, and name the attributes that tell them apart."""
    planes = [frame.plane for frame in frames if frame.plane is not None]
    row, column = np.reshape(planes[0].orientation, (2, 3))
    distances = np.array([plane.position for plane in planes]) @ np.cross(row, column)
    order = np.argsort(distances, kind="stable")
    place = np.empty(len(frames), dtype=int)
    place[order] = np.cumsum(np.diff(distances[order], prepend=-np.inf) >= DUPLICATE_DISTANCE) - 1
    shared = Counter(place.tolist())
    most = max(shared.values())
    if most == 1:
        return
    twins = [frame for frame, where in zip(frames, place, strict=True) if where == shared.most_common(1)[0][0]]
    told_apart: dict[str, bool] = {}
    for keyword in PHASE_KEYWORDS:
        values = [_comparable(frame.value(keyword)) for frame in frames]
        differs = len({_comparable(twin.value(keyword)) for twin in twins}) > 1
        if differs and len(set(values)) <= max(most, len(shared) // 2):  # not one value per slice, as times have
            told_apart[keyword] = len(set(zip(place.tolist(), values, strict=True))) == len(frames)
    found = f"Series {series}: {len(frames)} slices lie in {len(shared)} places ({names_of(twins)} in the same one)"
    if not told_apart:
        raise PyrasegError(f"{found}, and no attribute tells them apart: stored twice? Remove the copies.")
    alone = [keyword for keyword, enough in told_apart.items() if enough][:1]
    example = {keyword: twins[0].value(keyword) for keyword in (alone or told_apart)}
    differing = "; ".join(f"{keyword}: {_tally(frame.value(keyword) for frame in frames)}" for keyword in told_apart)
    options = " ".join(f"{keyword}={value}" for keyword, value in example.items())
    raise PyrasegError(
        f"{found}. They differ in {differing}. Move the slices of one to a folder of their own; an exported model "
        f"(`pyraseg export`) also takes --select {options}."
    )


def _plain(value: Any) -> Any:
    """Turn a header value into plain Python: str, int, float, tuple or None."""
    if isinstance(value, MultiValue | list | tuple):
        return tuple(_plain(v) for v in value)
    if isinstance(value, bool | type(None)):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value)
    try:
        return float(value)  # Decimal, where pydicom is set to use it
    except (TypeError, ValueError):
        return str(value)


def _comparable(value: Any) -> Any:
    """Make equal what a user would call equal: 2, 2.0 and "2"; ("A", "B") and ["A", "B"]; ("A",) and "A"."""
    if isinstance(value, tuple):
        return _comparable(value[0]) if len(value) == 1 else tuple(_comparable(v) for v in value)
    try:
        return f"{float(value):.6g}"
    except (TypeError, ValueError):
        return str(value).strip().upper() if value is not None else ""


def _tally(values: Iterable[object]) -> str:
    counts = Counter(_text(value) for value in values)
    listed = [f"{value} ({count})" for value, count in sorted(counts.items())]
    return ", ".join(listed[:12]) + (f" and {len(listed) - 12} more" if len(listed) > 12 else "")


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "\\".join(map(_text, value))
    return "none" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)


def names_of(frames: list[Frame]) -> str:
    """Return the names of the files of frames, the first three of them."""
    names = list(dict.fromkeys(frame.file.name for frame in frames))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
