# SPDX-License-Identifier: Apache-2.0
"""Tell apart what stands under one Series Instance UID though it is no one series: other patients, other copies.

Anonymizers give patients equal UIDs, and media hold images twice. A series that a medium only spreads over folders
stays one.
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.found import Stamp, opened
from bundle.pyraseg.dicom.geometry import DUPLICATE_DISTANCE, frame_planes
from bundle.pyraseg.dicom.headers import frame_value
from bundle.pyraseg.dicom.pixels import PIXEL_KEYWORDS

LOGGER = logging.getLogger(__name__)

#: What tells a patient from another, the most telling first: an attribute counts where those before it are empty.
IDENTITY = ("PatientID", "PatientName", "PatientBirthDate")
#: Slices of one stack overlap by less than this share of their thickness; those of two stacks, mixed, by more.
OVERLAP = 0.1


class Member(NamedTuple):
    """One file with its header, what tells whether it has changed since, and a hash of whose it is."""

    file: Path
    header: Dataset
    stamp: Stamp
    patient: str


def patient_of(header: Dataset) -> str:
    """Return a hash of what names the patient, or nothing where that is empty: to compare, and never to be shown.

    Whoever sees the hash of an ID of some digits finds the ID by hashing them all.
    """
    named = next((text for name in IDENTITY if (text := str(header.get(name) or "").strip())), "")
    return hashlib.sha256(named.encode()).hexdigest() if named else ""


def told_apart(uid: str, members: Sequence[Member]) -> list[list[Member]]:
    """Return the series that files of one Series Instance UID are, without copies; a warning says where there are more.

    Files of different patients, studies or modalities are never one series. Files of several folders are not, if an
    image there has another's UID or the folders have other image sizes, or if the folders number their images alike;
    without telling numbers, if their slices lie between each other more closely than slices of their thickness do.
    """
    found = []
    for own in _split(members, _whose(members)):
        kept = _without_copies(own)
        if len({member.file.parent for member in kept}) > 1 and not _is_one_stack(kept):
            found += _split(kept, lambda member: member.file.parent)
        else:
            found.append(kept)
    if len(found) > 1:
        numbers = {whose: number for number, whose in enumerate(dict.fromkeys(filter(None, map(_patient, found))), 1)}
        listed = "; ".join(_describe(series, numbers) for series in found[:4])
        listed += f" and {len(found) - 4} more" if len(found) > 4 else ""
        LOGGER.warning(
            "The series UID %s stands for %d different series: %s. Each is read as one of its own; give them UIDs of "
            "their own before the images or results are stored together.",
            uid, len(found), listed,
        )  # fmt: skip
    return found


def _split(members: Sequence[Member], key: Callable[[Member], Hashable]) -> list[list[Member]]:
    groups: dict[Hashable, list[Member]] = defaultdict(list)
    for member in members:
        groups[key(member)].append(member)
    return list(groups.values())


def _text(member: Member, keyword: str) -> str:
    value = member.header.get(keyword)
    return "" if value is None else str(value)  # the number 0 is a value


def _whose(members: Sequence[Member]) -> Callable[[Member], Hashable]:
    """Return what a file of a series shares with the others; an empty value is that of the others if they agree."""

    def facts(member: Member) -> tuple[str, ...]:
        return member.patient, *(_text(member, name) for name in ("StudyInstanceUID", "Modality"))

    stated = [{fact for fact in column if fact} for column in zip(*map(facts, members), strict=True)]
    if 2 < len(members) == len(stated[1]):
        stated[1] = {"made up for each image"}
    single = [next(iter(values)) if len(values) == 1 else None for values in stated]
    return lambda member: tuple(one or fact for one, fact in zip(single, facts(member), strict=True))


def _without_copies(members: list[Member]) -> list[Member]:
    """Return the files without those that hold an image of another one again: its UID, place and pixels."""
    by_uid = _split(members, lambda member: _text(member, "SOPInstanceUID") or member.file)
    kept, copies = [], []
    for same in by_uid:
        seen = set()
        for member in same:
            content = _content(member) if len(same) > 1 else ()
            (copies if content in seen else kept).append(member)
            seen.add(content)
    if copies:
        names = ", ".join(str(member.file) for member in copies[:3])
        LOGGER.warning("%d files hold an image of another file once more and are left out: %s%s", len(copies), names,
                       f" and {len(copies) - 3} more" if len(copies) > 3 else "")  # fmt: skip
    return sorted(kept, key=lambda member: members.index(member)) if copies else members


def _content(member: Member) -> tuple[str, ...]:
    """Return what copies of an image have in common; of a file that cannot be read, what no other has."""
    place = str(frame_value(member.header, 0, "ImagePositionPatient"))
    try:
        with opened(member.file, member.stamp) as (stream, _):
            dataset = pydicom.dcmread(stream, force=True, specific_tags=list(PIXEL_KEYWORDS))
            pixels = b"".join(bytes(dataset.get(name) or b"") for name in PIXEL_KEYWORDS)
    except Exception:  # Damaged files make pydicom raise nearly every type there is; reading the series tells of it.
        return (str(member.file),)
    return place, hashlib.sha256(pixels).hexdigest()


def _is_one_stack(members: Sequence[Member]) -> bool:
    """Return whether files of several folders are one series."""
    folders = _split(members, lambda member: member.file.parent)
    uids = [{uid for member in folder if (uid := _text(member, "SOPInstanceUID"))} for folder in folders]
    sizes = [{(int(member.header.Rows), int(member.header.Columns)) for member in folder} for folder in folders]
    if _share_something(uids) or (not _share_something(sizes) and all(len(size) == 1 for size in sizes)):
        return False
    numbers = [(_text(member, "InstanceNumber"), _text(member, "InConcatenationNumber")) for member in members]
    stated = [number for number in numbers if number[0]]
    if len(stated) < len(members) or len(set(stated)) == 1:
        return _is_evenly_filled(members, folders)
    return len(set(stated)) == len(stated) and not _are_interleaved(members)


def _share_something(sets: Sequence[set]) -> bool:
    return max(Counter(value for values in sets for value in values).values(), default=0) > 1


def _is_evenly_filled(members: Sequence[Member], folders: Sequence[Sequence[Member]]) -> bool:
    """Return whether the slices of folders follow each other, or lie between each other as those of one stack."""
    heights, thickness = _heights(members)
    if heights is None:
        return False
    places = dict(zip((member.file for member in members), heights, strict=True))
    ranges = sorted((min(own), max(own)) for own in ([places[member.file] for member in folder] for folder in folders))
    if all(below + DUPLICATE_DISTANCE < above for (_, below), (above, _) in pairwise(ranges)):
        return True
    return bool(thickness and np.diff(np.sort(heights)).min() > (1 - OVERLAP) * thickness)


def _are_interleaved(members: Sequence[Member]) -> bool:
    """Return whether slices lie in each other more closely than slices do, against the order of their numbers."""
    heights, thickness = _heights(members)
    if heights is None:
        return False
    closest = np.diff(np.sort(heights)).min()
    numbers = [_text(members[place], "InstanceNumber") for place in np.argsort(heights)]
    if not DUPLICATE_DISTANCE <= closest <= (1 - OVERLAP) * thickness or not all(map(str.isdecimal, numbers)):
        return False
    steps = np.diff([int(number) for number in numbers])
    return not ((steps > 0).all() or (steps < 0).all())


def _heights(members: Sequence[Member]) -> tuple[np.ndarray | None, float]:
    """Return where single images lie along their normal, (N,) mm, None where one has no place, and their thickness."""
    try:
        planes = [plane for member in members for plane in frame_planes(member.header)]
    except PyrasegError:  # malformed: reading the series tells of it
        return None, 0.0
    known = [plane for plane in planes if plane is not None]
    if len(known) != len(members) or len(planes) != len(members):
        return None, 0.0
    row, column = np.reshape(known[0].orientation, (2, 3))
    heights = np.array([plane.position for plane in known]) @ np.cross(row, column)
    return heights, max(plane.slice_thickness or 0.0 for plane in known)


def _patient(members: Sequence[Member]) -> str:
    return next((member.patient for member in members if member.patient), "")


def _describe(members: Sequence[Member], numbers: Mapping[str, int]) -> str:
    """Return what a person finds the files of a series by; a patient is told by a number within the message."""
    first, patient = members[0], _patient(members)
    whose = f"patient {numbers[patient]}" if patient else "a patient without an ID"
    size = f"{first.header.Rows}x{first.header.Columns}"
    return f"{len(members)} files of {size} in {first.file.parent}, of {whose}"
