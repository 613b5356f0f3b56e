# SPDX-License-Identifier: Apache-2.0
"""The frames of one series in the order of their places, from headers alone, or why they cannot stand in one stack."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.apart import OVERLAP
from bundle.pyraseg.dicom.differences import PHASES, are_pages, kinds_of
from bundle.pyraseg.dicom.found import opened
from bundle.pyraseg.dicom.frame import Frame, comparable, mixture, names_of, places, plain, short, tally
from bundle.pyraseg.dicom.geometry import PLANE_ATTRIBUTES, Geometry, frame_planes, stack_geometry
from bundle.pyraseg.dicom.grids import grid_kind, stored_values, unpack
from bundle.pyraseg.dicom.headers import frame_count, parse, transfer_syntax, without_notices
from bundle.pyraseg.dicom.others import refuse_others
from bundle.pyraseg.dicom.pixels import PIXEL_GROUPS, is_inverted
from bundle.pyraseg.dicom.scan import Scan, Series, find_series
from bundle.pyraseg.dicom.selection import ANY, Selection, advice, choices, ignored, read_selection, selected, typed
from bundle.pyraseg.dicom.views import TOMOGRAPHIC

LOGGER = logging.getLogger(__name__)

LEAST_NUMBERS = 3  # image numbers that tell something when they stand several times
MOST_GROUPS = 4  # series, or kinds of slices, that a message lists
LARGEST = 0xFFFF  # rows or columns, which are of 16 bits
UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def arrange_series(
    path: str | Path | Sequence[str | Path],
    *,
    series_uid: str | None = None,
    select: str | Selection | None = None,
) -> tuple[Series, list[Frame], Geometry | None]:
    """Return a series, its frames in order and their geometry, from headers alone; see `series.read_series`."""
    select = read_selection(select)
    series = _choose(find_series(path, keywords=select), series_uid)
    everything = _frames_of(series)
    frames = selected(everything, select, series=series)
    _require_uniform(series, frames, select)
    frames, geometry = _in_order(series, frames, select)
    _tell_of_empty_places(series, everything, frames, select)
    if any(header.get("BurnedInAnnotation") == "YES" for header in series.headers):
        LOGGER.warning(
            "Series %s has text burned into its pixels, maybe a name: check the images before you share them", series
        )
    return series, frames, geometry


def _choose(scan: Scan, series_uid: str | None) -> Series:
    listed = "; ".join(map(str, scan.series[:MOST_GROUPS]))
    listed += f"; and {len(scan.series) - MOST_GROUPS} more" * (len(scan.series) > MOST_GROUPS)
    if series_uid is None:
        if len(scan.series) > 1:
            raise PyrasegError(
                f"{scan.path} holds {len(scan.series)} series: {listed}. Give each a folder of its own; in "
                "Python, series_uid chooses one."
            )
        return scan.series[0]
    for series in scan.series:
        if series.uid == series_uid:
            return series
    raise PyrasegError(f"{scan.path} holds no series {series_uid}. It holds: {listed}.")


def _frames_of(series: Series) -> list[Frame]:
    frames, polarity = [], {}
    for file, header, stamp in zip(series.files, series.headers, series.stamps, strict=True):
        refuse_others(file, header)
        _require_possible(file, header)
        if grid_kind(header):  # it could not be unpacked when it was found
            with opened(file, stamp) as (stream, _), without_notices():
                unpack(header, pydicom.dcmread(stream, force=True, stop_before_pixels=True))
        stated = tuple(plain(header.get(name)) for name in ("PhotometricInterpretation", "PresentationLUTShape"))
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


def _require_uniform(series: Series, frames: list[Frame], select: Selection) -> None:
    """Refuse a series whose slices cannot stand in one array, or in one patient."""
    mixed = mixture(frames, ignored=ignored(select))
    if mixed is None:
        return
    name, groups = mixed
    where = f"Series {series} in {series.files[0].parent} mixes {name}"
    if name == "frames of reference" and len(groups) == len(frames):
        raise PyrasegError(
            f"{where}: each of its {len(frames)} slices has one of its own, as an anonymizer makes them. If they are "
            f"one scan, they can be read by their positions alone, with {typed({'FrameOfReferenceUID': ANY})}."
        )
    found = [f"{short(value)} ({len(group)} of {len(frames)}, {names_of(group)})" for value, group in groups.items()]
    listed = "; ".join(found[:MOST_GROUPS]) + (f"; and {len(found) - MOST_GROUPS} more" * (len(found) > MOST_GROUPS))
    stacks = sorted(choices(frames, given=select), key=lambda choice: -len(choice[1]))
    raise PyrasegError(
        f"{where}: {listed}. {advice(stacks) + ' Or move' if stacks else 'Move'} the odd files to a folder of their "
        "own, or read one file alone."
    )


def _tell_of_empty_places(series: Series, everything: list[Frame], frames: list[Frame], select: Selection) -> None:
    """Warn of a selection that leaves places of the series without a slice."""
    if len(frames) == len(everything) or any(frame.plane is None for frame in everything):
        return
    if mixture(everything, ignored=ignored(select)) is None:
        count = len(set(places(everything).tolist()))
        if len(frames) < count:
            LOGGER.warning(
                "Series %s: %s chooses %d slices, and the series has slices in %d places: %d stay empty. Choose by "
                "another attribute if they belong to the same stack.",
                series, typed(select), len(frames), count, count - len(frames),
            )  # fmt: skip


def _in_order(series: Series, frames: list[Frame], select: Selection) -> tuple[list[Frame], Geometry | None]:
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
    _require_distinct(series, frames, select)
    geometry, order = stack_geometry([frame.plane for frame in frames if frame.plane is not None])
    frames = [frames[k] for k in order]
    _require_one_numbering(series, frames, geometry)
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


def _require_one_numbering(series: Series, frames: list[Frame], geometry: Geometry) -> None:
    """Refuse slices that are numbered several times over and lie between each other: stacks of several patients."""
    numbers = [frame.value("InstanceNumber") for frame in frames]
    times = set(Counter(numbers).values())
    count = len(set(numbers))
    if None in numbers or count < LEAST_NUMBERS or len(times) > 1 or times == {1}:
        return
    one_after_the_other = len(set(numbers[:count])) == count
    closest, thickness = float(geometry.gaps.min()), geometry.slice_thickness or 0.0
    if not one_after_the_other and closest <= (1 - OVERLAP) * thickness:
        raise PyrasegError(
            f"Series {series} in {series.files[0].parent}: {count} image numbers stand "
            f"{times.pop()} times each, and slices {thickness:g} mm thick lie {closest:g} mm apart: stacks of several "
            "patients under one series UID, as an anonymizer may make them? Put the files of each into a folder of its "
            "own."
        )


def _require_distinct(series: Series, frames: list[Frame], select: Selection) -> None:
    """Refuse slices in the same place, and name what they are and what chooses one stack of them."""
    place = places(frames)
    shared = Counter(place.tolist())
    if max(shared.values()) == 1:
        return
    there, _ = shared.most_common(1)[0]
    twins = [frame for frame, where in zip(frames, place, strict=True) if where == there]
    found = f"Series {series}: {len(frames)} slices lie in {len(shared)} places ({names_of(twins)} in the same one)"
    differing = [name for name in PHASES if len({comparable(twin.value(name)) for twin in twins}) > 1]
    if not differing and _are_copies(frames, place):
        raise PyrasegError(
            f"{found}, with equal pixels and nothing that tells them apart: stored twice? Remove the copies."
        )
    stacks = choices(frames, given=select)
    chosen = [keyword for keyword in PHASES if any(keyword in choice for choice, _ in stacks)]
    told = {keyword: {comparable(twin.value(keyword)): twin.value(keyword) for twin in twins} for keyword in differing}
    kinds = ", ".join(kinds_of({keyword: list(values.values()) for keyword, values in told.items()}, chosen))
    if len(shared) == 1 and are_pages(
        {twin.value("ImageType") for twin in twins}, {twin.value("SOPClassUID") for twin in twins}
    ):
        kinds = "pages to be read, such as exam summaries or dose reports, and no slices"
    shown = differing[:MOST_GROUPS] or [next(iter(stacks[0][0])) if stacks else "InstanceNumber"]
    values = "; ".join(f"{keyword}: {tally(frame.value(keyword) for frame in frames)}" for keyword in shown)
    what = f"{found}. They are several {kinds or 'stacks, and no attribute says of what'}. They differ in {values}."
    if stacks:
        raise PyrasegError(f"{what} {advice(stacks)}")
    raise PyrasegError(
        f"{what} No choice by up to three attributes fills each place once. Move the files of one stack to a folder of "
        "their own."
    )


def _are_copies(frames: Sequence[Frame], place: np.ndarray) -> bool:
    """Return whether slices in one place have equal pixels, in the first, the middle and the last shared place."""
    shared = [where for where, count in sorted(Counter(place.tolist()).items()) if count > 1]
    for where in {shared[0], shared[len(shared) // 2], shared[-1]}:
        first, *others = (_stored(frame) for frame, own in zip(frames, place, strict=True) if own == where)
        if not all(np.array_equal(first, other) for other in others):
            return False
    return True


def _stored(frame: Frame) -> np.ndarray:
    with opened(frame.file, frame.stamp) as (stream, _), without_notices():
        dataset = pydicom.dcmread(stream, force=True)
        parse(dataset, PIXEL_GROUPS)
    return stored_values(dataset, frame.header)[frame.index]
