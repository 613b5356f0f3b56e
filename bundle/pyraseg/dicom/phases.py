# SPDX-License-Identifier: Apache-2.0
"""The phases of a series: the same places imaged again and again, over the heart beat, over time, by b-value.

Which attribute numbers them is found out, see `split_phases`.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.differences import CERTAIN
from bundle.pyraseg.dicom.frame import Frame, comparable, mixture, names_of, places, text

#: What may number phases, the first that does counts, and what they then are. What images *are* (an echo, a b-value)
#: comes before what only tells in which order they were made: with it an acquisition number often differs, too.
_HEART, _TIMES, _ECHOES = "phases of the heart beat", "times", "echoes"
NUMBERING = {
    "TemporalPositionIdentifier": _TIMES,
    "TemporalPositionIndex": _TIMES,
    "TriggerTime": _HEART,
    "NominalCardiacTriggerDelayTime": _HEART,
    "NominalPercentageOfCardiacPhase": _HEART,
    "TimeSlotVector": _HEART,
    "CardiacNumberOfImages": _HEART,
    "TemporalPositionTimeOffset": _TIMES,
    "TimeSliceVector": _TIMES,
    "PhaseVector": _TIMES,
    "EchoTime": _ECHOES,
    "EffectiveEchoTime": _ECHOES,
    "EchoNumbers": _ECHOES,
    "DiffusionBValue": "b-values",
    "InversionTime": "inversion times",
    "FlipAngle": "flip angles",
    "AcquisitionNumber": "acquisitions",
    "FrameAcquisitionNumber": "acquisitions",
    "AcquisitionTime": _TIMES,
    "ContentTime": _TIMES,
}
#: Times that may differ from place to place: the n-th of each place is phase n.
RANKED = (
    *("TriggerTime", "NominalCardiacTriggerDelayTime", "TemporalPositionTimeOffset"),
    *("AcquisitionTime", "ContentTime", "CardiacNumberOfImages"),
)
#: A step between two trigger times of a place that is so many times its usual one is a phase that is missing there.
LONGEST_STEP = 1.5


@dataclass(frozen=True, eq=False)
class Phase:
    """Hold one phase.

    Attributes:
        number: from 1.
        value: what the attribute is in it, as a text: one value, or the smallest and the largest.
        frames: one in each place, at most.
        missing: places of the series where it has none.
    """

    number: int
    value: str
    frames: tuple[Frame, ...]
    missing: int

    def by_file(self) -> dict[str, tuple[int, ...]]:
        """Return which frames of which files these are, counted from 0."""
        found: dict[str, list[int]] = defaultdict(list)
        for frame in self.frames:
            found[str(frame.file)].append(frame.index)
        return {file: tuple(sorted(indices)) for file, indices in found.items()}


@dataclass(frozen=True, eq=False)
class Phases:
    """Hold the phases of a series, two or more, in their order.

    Attributes:
        keyword: of the attribute that numbers them.
        kind: what they are, in words.
        ranked: its values differ from place to place, and the n-th in each place is phase n.
        phases: the phases.
        uneven: files beside which a phase seems to be missing: trigger times have a step there that is `LONGEST_STEP`
            times the usual one of their place.
    """

    keyword: str
    kind: str
    ranked: bool
    phases: tuple[Phase, ...]
    uneven: str = ""

    @property
    def incomplete(self) -> tuple[Phase, ...]:
        """Return the phases that lack a slice in some places."""
        return tuple(phase for phase in self.phases if phase.missing)

    def __len__(self) -> int:
        return len(self.phases)

    def __str__(self) -> str:
        by = f"the n-th {self.keyword} in each place" if self.ranked else self.keyword
        lacking = ", ".join(f"{phase.number} ({phase.missing} slices missing)" for phase in self.incomplete)
        told = f"; incomplete: {lacking}" * bool(lacking)
        if self.uneven:
            told += f"; a time seems to be missing beside {self.uneven}, so that later ones may be of other phases"
        return f"{len(self)} {self.kind}, by {by}{told}"


def split_phases(frames: Sequence[Frame]) -> Phases | None:
    """Return the phases that frames are, None where they are one stack, or no attribute numbers them.

    An attribute of `NUMBERING` does where every phase has one slice in each place. So do times that differ from place
    to place (a breath-hold for each): phase n is the n-th time of each place, whatever the times are; only two equal
    ones do not count. Where no attribute has all slices, one counts that lacks some, if its values are as many as
    slices in one place and one of its phases is complete.

    Args:
        frames: of one orientation, size and spacing, each with its place; else they have no phases. Of which frame of
            reference they are does not count.
    """
    if any(frame.plane is None for frame in frames) or mixture(frames, ignored=["frames of reference"]) is not None:
        return None
    place = places(frames)
    counts = np.bincount(place)
    if counts.max() < 2:
        return None
    columns = {keyword: found for keyword in NUMBERING if (found := _numbers(frames, keyword)) is not None}
    for keyword, values in columns.items():
        if keyword != "CardiacNumberOfImages" and (groups := _by_value(values, place, lacking=False)):
            return _phases(frames, keyword, groups, place, kind=NUMBERING[keyword])
        if keyword in RANKED and (groups := _by_rank(frames, keyword, values, place)):
            by = "InstanceNumber" if keyword == "CardiacNumberOfImages" else keyword
            return _phases(frames, by, groups, place, kind=NUMBERING[keyword], ranked=True)
    for keyword, values in columns.items():
        if keyword != "CardiacNumberOfImages" and (groups := _by_value(values, place, lacking=True)):
            return _phases(frames, keyword, groups, place, kind=NUMBERING[keyword])
    return None


def _numbers(frames: Sequence[Frame], keyword: str) -> np.ndarray | None:
    """Return the values of an attribute, (N,), or None where one has none that is a number."""
    try:
        return np.array([float(str(frame.value(keyword))) for frame in frames])
    except ValueError:
        return None


def _by_value(values: np.ndarray, place: np.ndarray, *, lacking: bool) -> list[np.ndarray]:
    """Return the indices of the frames of each phase if values are phases; `lacking` lets some have empty places."""
    found, phase = np.unique(values, return_inverse=True)
    held = np.zeros((len(found), place.max() + 1), int)
    np.add.at(held, (phase, place), 1)
    full = held.all(axis=1)
    if len(found) != np.bincount(place).max() or held.max() > 1 or not (full.any() if lacking else full.all()):
        return []
    return [np.flatnonzero(phase == number) for number in range(len(found))]


def _by_rank(frames: Sequence[Frame], keyword: str, values: np.ndarray, place: np.ndarray) -> list[np.ndarray]:
    """Return the indices of the frames of each phase if the n-th time of each place is phase n."""
    counts = np.bincount(place)
    if counts.min() != counts.max() or _are_of_kinds(frames):
        return []
    if keyword == "CardiacNumberOfImages":  # it says how many there are; image numbers say in which order
        numbers = _numbers(frames, "InstanceNumber")
        if numbers is None or set(values) != {float(counts[0])}:
            return []
        values = numbers
    ordered = np.lexsort((values, place)).reshape(-1, counts[0])
    return [] if (np.diff(values[ordered], axis=1) == 0).any() else list(ordered.T)


def _are_of_kinds(frames: Sequence[Frame]) -> bool:
    """Return whether images differ in what they are (echoes, b-values, Dixon images), which a rank would mix."""
    return any(len({comparable(frame.value(keyword)) for frame in frames}) > 1 for keyword in CERTAIN)


def _phases(
    frames: Sequence[Frame],
    keyword: str,
    groups: Sequence[np.ndarray],
    place: np.ndarray,
    *,
    kind: str,
    ranked: bool = False,
) -> Phases:
    count, phases = int(place.max()) + 1, []
    for number, members in enumerate(groups, 1):
        own = tuple(frames[index] for index in members)
        values = sorted((frame.value(keyword) for frame in own), key=lambda value: float(str(value)))
        span = list(dict.fromkeys(text(value) for value in (values[0], values[-1])))
        phases.append(Phase(number, " to ".join(span), own, count - len(own)))
    uneven = _beside_a_gap(frames, keyword, groups) if ranked and keyword == "TriggerTime" else ""
    return Phases(keyword, kind, ranked, tuple(phases), uneven)


def _beside_a_gap(frames: Sequence[Frame], keyword: str, groups: Sequence[np.ndarray]) -> str:
    """Return the files between whose trigger times a phase seems to be missing."""
    times = np.array([[float(str(frames[index].value(keyword))) for index in members] for members in groups])
    steps = np.diff(times, axis=0)
    wide = np.argwhere(steps > LONGEST_STEP * np.median(steps, axis=0))
    return names_of([frames[groups[phase][place]] for phase, place in wide])


def phase_number(phases: Phases | None, number: int, *, series: object) -> Phase | None:
    """Return one of the phases of a series, None where it is one stack and the first one is meant.

    Raises:
        PyrasegError: there is none of that number.
    """
    count = len(phases) if phases is not None else 1
    if number > count:
        there = str(phases) if phases is not None else "one stack"
        raise PyrasegError(f"Series {series} has no phase {number}: it has {there}. Choose one of 1 to {count}.")
    return None if phases is None else phases.phases[number - 1]
