# SPDX-License-Identifier: Apache-2.0
"""Choose one stack of slices where a series holds several: by attributes, as a user types them, and as we advise."""

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations

from pydicom.datadict import keyword_dict

from bundle.pyraseg.core import PyrasegError, nearest_hint
from bundle.pyraseg.dicom.descriptions import is_personal
from bundle.pyraseg.dicom.differences import PHASES
from bundle.pyraseg.dicom.frame import Frame, comparable, counted, mixture, names_of, places, plain, short, tally, text
from bundle.pyraseg.dicom.phases import Phases
from bundle.pyraseg.dicom.wanted import ALL_PHASES

#: As the value of a keyword: it need not be the same in all slices.
ANY = "any"
#: Which attributes stand for what `frame.FACTS` names, and may be anything: positions then tell where slices lie.
IGNORABLE = {"FrameOfReferenceUID": "frames of reference"}
#: What else tells stacks apart that cannot be one.
MIXED = ("FrameOfReferenceUID", "ImageOrientationPatient", "Rows", "Columns", "PixelSpacing")
#: What numbers the slices in one place: its n-th value is chosen by #n. Frames have indices instead of numbers.
RANKED = ("TriggerTime", "AcquisitionTime", "ContentTime", "InstanceNumber", "DimensionIndexValues")
#: Choices that a message lists.
MOST_CHOICES = 4

Selection = Mapping[str, object]


class SeveralStacks(PyrasegError):
    """Slices are more than one stack.

    Attributes:
        choices: selections that were tried, as `read_selection` takes them, each with the number of its slices.
        phases: what they are, where something numbers them.
        given: the selection without which they are no phases.
    """

    def __init__(
        self,
        message: str,
        stacks: Sequence[tuple[Selection, Sequence[Frame]]] = (),
        *,
        phases: Phases | None = None,
        given: Selection | None = None,
    ) -> None:
        told = "" if phases is None else f" It has {phases}. {phase_advice(phases, given or {})}"
        super().__init__(f"{message}{told}")
        self.phases = phases
        self.given = given or {}
        self.choices = [(selection_text(select), len(frames)) for select, frames in stacks]


def read_selection(select: str | Sequence[str] | Selection | None) -> dict[str, object]:
    """Return the values that slices must have, by keyword.

    Args:
        select: a mapping, or as it is typed: ``AcquisitionNumber=2``, several with a semicolon between them, or a list
            of such.

    Raises:
        PyrasegError: it has another form, or names something else than DICOM keywords.
    """
    if not isinstance(select, Mapping):
        written = select or ""
        pairs = [
            part.partition("=") for part in (written if isinstance(written, str) else ";".join(written)).split(";")
        ]
        pairs = [(keyword.strip(), value.strip()) for keyword, _, value in pairs if keyword.strip() or value.strip()]
        if not all(keyword and value for keyword, value in pairs):
            raise PyrasegError(
                f"The option select is {written!r}, which lacks a keyword or a value. Write KEYWORD=VALUE, such as "
                "AcquisitionNumber=2, and several with a semicolon between them."
            )
        select = dict(pairs)
    for keyword in select:
        if keyword not in keyword_dict:
            raise PyrasegError(
                f"The option select takes DICOM keywords, such as AcquisitionNumber, and {keyword!r} is none."
                f"{nearest_hint(keyword, keyword_dict)}"
            )
    return {keyword: _as_typed(value) for keyword, value in select.items()}


def _as_typed(value: object) -> object:
    """Return a value as it was typed: MONAI's configs make "::" of each "#"."""
    return re.sub(r"^::(?=\d+$)", "#", value) if isinstance(value, str) else value


def selection_text(select: Selection) -> str:
    """Return a selection as `read_selection` takes it."""
    return ";".join(f"{keyword}={text(value)}" for keyword, value in select.items())


def typed(select: Selection) -> str:
    """Return the option that selects it, as it is typed in a shell."""
    return f"--select {shlex.quote(selection_text(select))}"


def can_be_typed(select: Selection) -> bool:
    """Return whether the text of a selection means its values: no semicolon parts one, and none counts as ``#n``."""
    try:
        read = read_selection(selection_text(select))
    except PyrasegError:
        return False
    return read.keys() == select.keys() and not any(
        _is_rank(value) or comparable(_parted(value)) != comparable(select[keyword]) for keyword, value in read.items()
    )


def ignored(select: Selection) -> set[str]:
    """Return which of `frame.FACTS` do not count with a selection."""
    return {IGNORABLE[keyword] for keyword, value in select.items() if value == ANY and keyword in IGNORABLE}


def selected(frames: list[Frame], select: Selection, *, series: object) -> list[Frame]:
    """Return the frames that have what is selected; of a value ``#n`` those that come n-th in their place.

    Raises:
        PyrasegError: there is none, or the frames have no places to count in, or these hold different numbers of them.
    """
    ranks = {keyword: int(str(value)[1:]) for keyword, value in select.items() if _is_rank(value)}
    for keyword, wanted in select.items():
        if keyword in ranks or (keyword in IGNORABLE and wanted == ANY):
            continue
        meant = comparable(plain(_parted(wanted)))
        chosen = [frame for frame in frames if comparable(frame.value(keyword)) == meant]
        if not chosen:
            there = "other values" if is_personal(keyword) else tally(frame.value(keyword) for frame in frames)
            wanted = "that value" if is_personal(keyword) else short(text(wanted))
            raise PyrasegError(
                f"Series {series}: no slice has {keyword} = {wanted}. There are: {there}. Correct select or "
                "leave it out."
            )
        frames = chosen
    for keyword, rank in ranks.items():
        if rank == 0:
            raise PyrasegError(f"{keyword}=#0 chooses none: numbers of --select begin with {keyword}=#1, the smallest.")
        if mixture(frames, ignored=ignored(select)) or any(frame.plane is None for frame in frames):
            raise PyrasegError(
                f"Series {series}: {keyword}=#{rank} counts the slices that lie in one place, and these are not of one "
                f"stack. Select a stack first, in the form 'KEYWORD=VALUE;{keyword}=#{rank}'."
            )
        numbered = _ranks(frames, keyword)
        if uneven := _uneven_places(frames, numbered):
            raise PyrasegError(
                f"Series {series}: {keyword}=#{rank} counts the slices that lie in one place, and the places hold "
                f"different numbers of them, so that it would mix stacks: {_told_places(uneven, numbered, keyword)}. "
                "Add the slices that are missing, select by a value, or move the files of one stack to a folder of "
                "their own."
            )
        frames = [frame for frame in frames if numbered.get(frame) == rank]
        if not frames:
            raise PyrasegError(
                f"Series {series}: nowhere do {rank} slices of different {keyword} lie in one place, so "
                f"{keyword}=#{rank} chooses none. Give a smaller number, or select by a value."
            )
    return frames


def _parted(value: object) -> object:
    """Return a value as the header has it: of several, typed with backslashes between them, all."""
    return tuple(value.split("\\")) if isinstance(value, str) and "\\" in value else value


def _is_rank(value: object) -> bool:
    return isinstance(value, str) and value[:1] == "#" and value[1:].isdecimal()


def _ranks(frames: Sequence[Frame], keyword: str) -> dict[Frame, int]:
    """Return the rank of each frame among those in its place by a number, from 1; none where two have the same."""
    by_place: dict[int, list[tuple[tuple[float, ...], Frame]]] = defaultdict(list)
    for frame, place in zip(frames, places(frames), strict=True):
        value = frame.value(keyword)
        try:
            numbers = tuple(float(str(part)) for part in (value if isinstance(value, tuple) else (value,)))
        except ValueError:
            continue
        by_place[int(place)].append((numbers, frame))
    return {
        frame: rank
        for members in by_place.values()
        if len({value for value, _ in members}) == len(members)
        for rank, (_, frame) in enumerate(sorted(members, key=lambda member: member[0]), 1)
    }


def _uneven_places(frames: Sequence[Frame], numbered: Mapping[Frame, int]) -> list[list[Frame]]:
    """Return the frames of each place, those with the fewest first; nothing where all hold, and number, as many."""
    by_place: dict[int, list[Frame]] = defaultdict(list)
    for frame, place in zip(frames, places(frames), strict=True):
        by_place[int(place)].append(frame)

    def count(members: Sequence[Frame]) -> tuple[int, int]:
        return len(members), sum(frame in numbered for frame in members)

    found = sorted((by_place[place] for place in sorted(by_place)), key=count)
    return found if found and count(found[0]) != count(found[-1]) else []


def _told_places(uneven: Sequence[Sequence[Frame]], numbered: Mapping[Frame, int], keyword: str) -> str:
    """Return in words what the places hold, the shortest of them with their files."""

    def held(members: Sequence[Frame]) -> str:
        count, known = len(members), sum(frame in numbered for frame in members)
        return counted(count, "slice") + (f", of which {keyword} numbers {known}" if known < count else "")

    most = held(uneven[-1])
    less = [members for members in uneven if held(members) != most]
    listed = "; ".join(
        f"{held(members)} at {text(members[0].value('ImagePositionPatient'))} ({names_of(members)})"
        for members in less[:MOST_CHOICES]
    )
    more = f"; and {len(less) - MOST_CHOICES} more" * (len(less) > MOST_CHOICES)
    return f"{len(uneven) - len(less)} of {len(uneven)} hold {most}, but there are {listed}{more}"


def choices(
    frames: Sequence[Frame], *, given: Selection, is_read: Callable[[Sequence[Frame]], bool]
) -> list[tuple[dict[str, object], list[Frame]]]:
    """Return selections, beyond a given one, that were tried: what they choose is one stack and fills all its places.

    Those by one attribute come first, then those by two, by rank, by one and a rank, and by three; of these the first
    kind that reaches every frame is returned, or the one that reaches most. No frame is chosen twice in vain.

    Args:
        frames: that are several stacks.
        given: the selection that chose them.
        is_read: tells of one stack whether reading takes it.
    """
    skipped = ignored(given)
    is_mixed = mixture(frames, ignored=skipped) is not None
    count = 0 if is_mixed else len(set(places(frames).tolist()))

    def is_stack(chosen: Sequence[Frame]) -> bool:
        if mixture(chosen, ignored=skipped) is not None:
            return False
        if any(frame.plane is None for frame in chosen):  # projections have no places to fill
            return all(frame.plane is None for frame in chosen) and is_read(chosen)
        there = len(set(places(chosen).tolist()))
        return there == len(chosen) and (is_mixed or there == count) and is_read(chosen)

    values = {keyword: [frame.value(keyword) for frame in frames] for keyword in (*PHASES, *(MIXED * is_mixed))}
    kinds = {keyword: len(set(map(comparable, column))) for keyword, column in values.items()}
    differing = [name for name, count in kinds.items() if 1 < count <= len(frames) / 2 or (is_mixed and name in MIXED)]
    best: list[tuple[dict[str, object], list[Frame]]] = []
    reached = 0
    for candidates in _candidates(frames, values, differing, ranks=not is_mixed):
        found, covered = [], set()
        for select, chosen in candidates():
            if not covered.issuperset(chosen) and is_stack(chosen):
                found.append(({**given, **select}, chosen))
                covered.update(chosen)
        if len(covered) > reached:
            best, reached = found, len(covered)
        if reached == len(frames):
            break
    return best


Candidates = Iterator[tuple[dict[str, object], list[Frame]]]


def _candidates(
    frames: Sequence[Frame], values: Mapping[str, Sequence[object]], differing: Collection[str], *, ranks: bool
) -> list[Callable[[], Candidates]]:
    """Return the kinds of selections to try.

    What a rank chooses is of one kind: numbers need not go by kinds. Where a slice is missing, a rank mixes stacks.
    """
    number_of = {frame: number for number, frame in enumerate(frames)}
    kinds = [values[keyword] for keyword in differing if keyword not in RANKED]

    def are_alike(chosen: Sequence[Frame]) -> bool:
        numbers = [number_of[frame] for frame in chosen]
        return all(len({comparable(column[number]) for number in numbers}) == 1 for column in kinds)

    def by(keywords: Sequence[str]) -> Candidates:
        groups: dict[tuple, list[int]] = defaultdict(list)
        for number in range(len(frames)):
            groups[tuple(comparable(values[keyword][number]) for keyword in keywords)].append(number)
        for key in sorted(groups, key=lambda key: groups[key][0]):
            numbers = groups[key]
            chosen = {keyword: values[keyword][numbers[0]] for keyword in keywords}
            if can_be_typed(chosen):  # nothing is typed to choose what lacks a value
                yield chosen, [frames[number] for number in numbers]

    def by_one() -> Candidates:
        for keyword in differing:
            yield from by([keyword])

    def by_several(count: int) -> Candidates:
        for keywords in combinations(differing, count):
            yield from by(keywords)

    def by_rank(among: Sequence[Frame] = frames) -> Candidates:
        for keyword in RANKED:
            numbered = _ranks(among, keyword)
            if _uneven_places(among, numbered):
                continue
            for rank in range(1, max(numbered.values(), default=0) + 1):
                chosen = [frame for frame in among if numbered.get(frame) == rank]
                if are_alike(chosen):
                    yield {keyword: f"#{rank}"}, chosen

    def by_one_and_rank() -> Candidates:
        for select, chosen in by_one():
            for rank, ranked in by_rank(chosen):
                if not rank.keys() & select.keys():
                    yield select | rank, ranked

    by_two, by_three = partial(by_several, 2), partial(by_several, 3)
    return [by_one, by_two, by_rank, by_one_and_rank, by_three] if ranks else [by_one, by_two, by_three]


def phase_advice(phases: Phases, given: Selection) -> str:
    """Return what can be typed to read one of some phases, or all."""
    before = f"{typed(given)} " if given else ""
    return f"Segment one with {before}--phase 1 to --phase {len(phases)}, or each with {before}--phase {ALL_PHASES}."


def advice(found: Sequence[tuple[dict[str, object], list[Frame]]]) -> str:
    """Return what can be typed to read one of some stacks."""
    listed = [f"{typed(select)} ({counted(len(chosen), 'slice')})" for select, chosen in found[:MOST_CHOICES]]
    more = f", and {len(found) - MOST_CHOICES} more of this kind" if len(found) > MOST_CHOICES else ""
    first = {
        keyword: value if isinstance(value, int | float) else text(value) for keyword, value in found[0][0].items()
    }
    return f"Read one of them with {' or '.join(listed)}{more} (in Python select={first})."
