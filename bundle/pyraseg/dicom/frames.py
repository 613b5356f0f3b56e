# SPDX-License-Identifier: Apache-2.0
"""The frames of one series in the order of their places, by their headers, or why they cannot stand in one stack."""

import logging
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.apart import OVERLAP
from bundle.pyraseg.dicom.differences import PHASES, are_pages, kinds_of
from bundle.pyraseg.dicom.found import FoundFile, are_found, opened
from bundle.pyraseg.dicom.frame import Frame, comparable, mixture, names_of, places, plain, short, tally
from bundle.pyraseg.dicom.geometry import PLANE_ATTRIBUTES, Geometry, frame_planes, stack_geometry
from bundle.pyraseg.dicom.grids import grid_kind, stored_values, unpack
from bundle.pyraseg.dicom.headers import frame_count, parse, transfer_syntax
from bundle.pyraseg.dicom.others import refuse_others
from bundle.pyraseg.dicom.phases import Phases, phase_number, split_phases
from bundle.pyraseg.dicom.pixels import PIXEL_GROUPS, is_inverted
from bundle.pyraseg.dicom.scan import Scan, Series, find_series
from bundle.pyraseg.dicom.selection import (
    ANY,
    IGNORABLE,
    Selection,
    SeveralStacks,
    advice,
    choices,
    ignored,
    read_selection,
    selected,
    typed,
)
from bundle.pyraseg.dicom.views import TOMOGRAPHIC
from bundle.pyraseg.dicom.wanted import ChosenPath, read_phase, read_wanted, those_meant

LOGGER = logging.getLogger(__name__)

LEAST_NUMBERS = 3  # image numbers that tell something when they stand several times
MOST_GROUPS = 4  # series, or kinds of slices, that a message lists
LARGEST = 0xFFFF  # rows or columns, which are of 16 bits
UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def arrange_series(
    path: str | Path | Sequence[str | Path],
    *,
    series: object = None,
    select: str | Selection | None = None,
    phase: object = None,
) -> tuple[Series, list[Frame], Geometry | None]:
    """Return a series, its frames in order and their geometry, by their headers; see `series.read_series`."""
    only: dict[Path, tuple[int, ...]] | None = None
    if isinstance(path, ChosenPath) or (not isinstance(path, str | Path) and len(path) == 1):
        chosen = path if isinstance(path, ChosenPath) else path[0]
        if isinstance(chosen, ChosenPath):  # what is said of one case comes before what is said of all
            series, select = chosen.series or series, chosen.select or select
            phase = chosen.phase or phase
    select = read_selection(select)
    if are_found(path):  # it was chosen when it was found, and its phase, too
        series = None
        found = [file for file in ([path] if isinstance(path, str | Path) else path) if isinstance(file, FoundFile)]
        if found[0].frames is not None:
            only = {Path(file): file.frames or () for file in found}
            select, phase = {keyword: value for keyword, value in select.items() if value == ANY}, None
    own = _choose(find_series(path, keywords=select), read_wanted(series))
    return in_stack(own, select, phase=phase, only=only)


def find_header(path: str | Path, *, keywords: Iterable[str]) -> Dataset:
    """Return the header of the first file of the series that a path stands for.

    Args:
        path: of a series; a `ChosenPath` says which one there.
        keywords: attributes to keep in it.

    Raises:
        PyrasegError: there is no series, or there are several.
    """
    wanted = read_wanted(path.series) if isinstance(path, ChosenPath) else []
    return _choose(find_series(path, keywords=keywords), wanted).headers[0]


def in_stack(
    series: Series,
    select: Selection,
    *,
    phase: object = None,
    only: Mapping[Path, Collection[int]] | None = None,
    tell: Callable[[str], None] = LOGGER.warning,
) -> tuple[Series, list[Frame], Geometry | None]:
    """Return a series, those of its frames that are selected, in order, and their geometry.

    Pixels are decoded only where slices in one place seem to be stored twice, and then of some of them.

    Args:
        series: whose headers have what is selected by.
        select: see `read_selection`.
        phase: the number of one; nothing where the series is one stack.
        only: the frames of each file, from 0, that count; None for all.
        tell: takes what is odd, in sentences.

    Raises:
        SeveralStacks: they are more than one stack.
        PyrasegError: they are none.
    """
    everything = _frames_of(series, tell)
    if only is not None:
        everything = [frame for frame in everything if frame.index in only[frame.file]]
    frames = selected(everything, select, series=series)
    if number := read_phase(phase):
        frames = _of_phase(series, frames, number, select, tell)
    _require_uniform(series, frames, select)
    frames, geometry = _in_order(series, frames, select, tell)
    _tell_of_empty_places(series, everything, frames, select, tell)
    _require_one_scale(series, frames, tell)
    if any(header.get("BurnedInAnnotation") == "YES" for header in series.headers):
        tell(f"Series {series} has text burned into its pixels, maybe a name: check the images before you share them")
    return series, frames, geometry


def find_phases(series: Series, select: Selection) -> Phases | None:
    """Return the phases of those slices of a series that are selected; None where they are one stack.

    Raises:
        PyrasegError: several slices lie in one place, and nothing numbers them; or as `in_stack`.
    """
    frames = selected(_frames_of(series, lambda _: None), select, series=series)
    phases = _phases_read(series, frames, select)
    if phases is None:
        in_stack(series, select, tell=lambda _: None)
    elif IGNORABLE.keys().isdisjoint(select):
        _require_one_frame_of_reference(series, frames, select)
    return phases


def _require_one_frame_of_reference(series: Series, frames: list[Frame], select: Selection) -> None:
    """Refuse phases whose slices have several; positions alone are believed only where the user says so."""
    if mixture(frames) is not None:
        _require_uniform(series, frames, select)


def _of_phase(
    series: Series, frames: list[Frame], number: int | str, select: Selection, tell: Callable[[str], None]
) -> list[Frame]:
    """Return the frames of one phase."""
    if not isinstance(number, int):
        raise PyrasegError(
            f"Here one phase of series {series} is read, and phase is {number!r}, which is for inference. Give its "
            "number."
        )
    phases = find_phases(series, select)
    phase = phase_number(phases, number, series=series)
    if phases is None or phase is None:
        return frames
    if phase.missing:
        tell(f"Series {series}: phase {number} has no slice in {phase.missing} places; the series has {phases}")
    meant = {(frame.file, frame.index) for frame in phase.frames}
    return [frame for frame in frames if (frame.file, frame.index) in meant]


def _choose(scan: Scan, wanted: Sequence[str]) -> Series:
    """Return the series that some texts mean, or the only one."""
    found = those_meant(scan.series, wanted, scan.path, any_of=True)
    if len(found) == 1:
        return found[0]
    meant = f" that --series {shlex.quote(';'.join(wanted))} means" * bool(wanted)
    raise PyrasegError(
        f"{scan.path} holds {len(found)} series{meant}: {_listed(found)}. Choose one of them with "
        f'{_distinct_choice(found)}, in a data list by the same text under "series", or give each a folder of its own.'
    )


def _listed(series: Sequence[Series]) -> str:
    more = f"; and {len(series) - MOST_GROUPS} more" * (len(series) > MOST_GROUPS)
    return "; ".join(map(str, series[:MOST_GROUPS])) + more


def _distinct_choice(series: Sequence[Series]) -> str:
    """Return what is typed for the first of some series: its number if no other one has it, else its UID."""
    numbers = [one.number for one in series]
    text = numbers[0] if numbers[0].isdecimal() and numbers.count(numbers[0]) == 1 else series[0].uid
    return f"--series {shlex.quote(text)}"


def _frames_of(series: Series, tell: Callable[[str], None]) -> list[Frame]:
    frames, polarity = [], {}
    for file, header, stamp in zip(series.files, series.headers, series.stamps, strict=True):
        refuse_others(file, header)
        _require_possible(file, header)
        if grid_kind(header):  # it could not be unpacked when it was found
            with opened(file, stamp) as (stream, _):
                unpack(header, pydicom.dcmread(stream, force=True, stop_before_pixels=True))
        stated = tuple(plain(header.get(name)) for name in ("PhotometricInterpretation", "PresentationLUTShape"))
        if stated not in polarity:  # asked once for all slices alike, for it may warn
            polarity[stated] = is_inverted(header, tell=tell)
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
        stacks = _by_positions(series, frames, {**select, "FrameOfReferenceUID": ANY})
        then = "their positions do not tell it. Move the files of each stack to a folder of their own."
        if stacks:
            then = f"they can be read by their positions alone. {advice(stacks)}"
        raise SeveralStacks(
            f"{where}: each of its {len(frames)} slices has one of its own, as an anonymizer makes them. If they are "
            f"one scan, {then}",
            stacks,
            phases=_phases_read(series, frames, {**select, "FrameOfReferenceUID": ANY}),
            given={**select, "FrameOfReferenceUID": ANY},
        )
    found = [f"{short(value)} ({len(group)} of {len(frames)}, {names_of(group)})" for value, group in groups.items()]
    listed = "; ".join(found[:MOST_GROUPS]) + (f"; and {len(found) - MOST_GROUPS} more" * (len(found) > MOST_GROUPS))
    stacks = sorted(
        choices(frames, given=select, is_read=partial(_is_read, series, select)), key=lambda choice: -len(choice[1])
    )
    raise SeveralStacks(
        f"{where}: {listed}. {advice(stacks) + ' Or move' if stacks else 'Move'} the odd files to a folder of their "
        "own, or read one file alone.",
        stacks,
    )


def _is_read(series: Series, select: Selection, frames: Sequence[Frame]) -> bool:
    """Return whether frames that were chosen from a series to be one stack are read as one."""
    try:
        _in_order(series, list(frames), select, lambda _: None)
    except PyrasegError:
        return False
    return True


def _phases_read(series: Series, frames: Sequence[Frame], select: Selection) -> Phases | None:
    """Return the phases that frames are if each of them is read as one stack."""
    phases = split_phases(frames)
    if phases is None or not all(_is_read(series, select, phase.frames) for phase in phases.phases):
        return None
    return phases


def _by_positions(series: Series, frames: list[Frame], alone: Selection) -> list[tuple[dict[str, object], list[Frame]]]:
    """Return what reads frames by their positions alone: all of them, or a stack where they are several."""
    is_read = partial(_is_read, series, alone)
    one = mixture(frames, ignored=ignored(alone)) is None and len(set(places(frames).tolist())) == len(frames)
    return [(dict(alone), frames)] if one and is_read(frames) else choices(frames, given=alone, is_read=is_read)


def _tell_of_empty_places(
    series: Series, everything: list[Frame], frames: list[Frame], select: Selection, tell: Callable[[str], None]
) -> None:
    """Warn of a selection that leaves places of the series without a slice."""
    if len(frames) == len(everything) or any(frame.plane is None for frame in everything):
        return
    if mixture(everything, ignored=ignored(select)) is None:
        count = len(set(places(everything).tolist()))
        if len(frames) < count:
            tell(
                f"Series {series}: {typed(select)} chooses {len(frames)} slices, and the series has slices in {count} "
                f"places: {count - len(frames)} stay empty. Choose by another attribute if they belong to the same "
                "stack."
            )


def _in_order(
    series: Series, frames: list[Frame], select: Selection, tell: Callable[[str], None]
) -> tuple[list[Frame], Geometry | None]:
    """Sort frames along the normal; refuse missing and duplicate positions."""
    missing = [frame for frame in frames if frame.plane is None]
    several_files = len({frame.file for frame in frames}) > 1
    if missing and (len(missing) < len(frames) or (several_files and series.modality in TOMOGRAPHIC)):
        counts = {name: sum(frame.value(name) in (None, "") for frame in missing) for name in PLANE_ATTRIBUTES}
        lacking = [name if count == len(missing) else f"{name} ({count})" for name, count in counts.items() if count]
        raise PyrasegError(
            f"Series {series}: {len(missing)} of {len(frames)} slices lack {' and '.join(lacking) or 'a plane'} "
            f"({names_of(missing)}), so their place in the stack is unknown. Export them again with "
            f"{', '.join(PLANE_ATTRIBUTES)}; only a model of single images can read each file alone."
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
        counted_out = f". It has {gaps} gap{'s' * (gaps > 1)}, of which volumes and surfaces count nothing"
        tell(
            f"Series {series} is not evenly spaced: {steps.min():.3f} to {steps.max():.3f} mm, {steps[widest]:.3f} mm "
            f"between {frames[widest].file} and {frames[widest + 1].file}; a slice may be missing"
            f"{counted_out if gaps else ''}"
        )
    return frames, geometry


def _require_one_scale(series: Series, frames: list[Frame], tell: Callable[[str], None]) -> None:
    """Tell of CT whose headers do not say how values are scaled; refuse slices of which only some are scaled."""
    if frames[0].is_color:
        return
    silent, scaled = [], []
    for frame in frames:
        slope, intercept = (frame.value(name) for name in ("RescaleSlope", "RescaleIntercept"))
        if (slope in (None, "") or intercept in (None, "")) and frame.value("ModalityLUTSequence") is None:
            silent.append(frame)
        elif (slope, intercept) != (1, 0):
            scaled.append(frame)
    lack = (
        f"Series {series}: {len(silent)} of {len(frames)} slices ({names_of(silent)}) state no RescaleSlope or no "
        "RescaleIntercept"
    )
    if silent and scaled:
        raise PyrasegError(
            f"{lack}, and others are scaled by theirs ({names_of(scaled)}), so that their values would not be of one "
            "unit. Correct the headers, or export the series again."
        )
    if silent and series.modality == "CT":
        tell(
            f"{lack}: stored values are taken as Hounsfield units, and are wrong where they are none. Correct the "
            "headers"
        )


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
    stacks = choices(frames, given=select, is_read=partial(_is_read, series, select))
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
    phases = _phases_read(series, frames, select)
    if stacks or phases is not None:
        told = f"{what} {advice(stacks)}" if stacks else what
        raise SeveralStacks(told, stacks, phases=phases, given=select)
    raise PyrasegError(
        f"{what} No choice that can be typed, of up to three attributes, reads one stack that fills all places. Move "
        "the files of one stack to a folder of their own."
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
    with opened(frame.file, frame.stamp) as (stream, _):
        dataset = pydicom.dcmread(stream, force=True)
        parse(dataset, PIXEL_GROUPS)
    return stored_values(dataset, frame.header)[frame.index]
