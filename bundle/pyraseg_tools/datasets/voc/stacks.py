# SPDX-License-Identifier: Apache-2.0
"""Plan a conversion: which slices are read together, with which label, whose they are, what they will be called."""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os.path import commonpath
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError, read_csv, without_suffix
from bundle.pyraseg.datalists import PATIENT_KEYWORDS, Identity, group_patients
from bundle.pyraseg.dicom import Scan, Series, frame_planes, is_meant, read_selection, those_meant
from bundle.pyraseg.labels import DRAWN_ON, ImageUids, images_of, read_references

LOGGER = logging.getLogger(__name__)

#: What the plan and the conversion ask of headers beyond what reading needs. PatientID ends up in the link alone.
KEYWORDS = (*PATIENT_KEYWORDS, "PixelAspectRatio", "RescaleSlope", "RescaleIntercept")
COLUMNS = ("series", "label", "patient", "select", "drawn_on")
_UID = re.compile(r"\d[\d.]*")


@dataclass(frozen=True, eq=False)
class Stack:
    """Hold what is read together: a series, or one file of a series of projections, which have no place in common."""

    series_uid: str
    series_number: str
    series_description: str
    study_uid: str
    files: tuple[Path, ...]
    headers: tuple[Dataset, ...] = field(repr=False)
    select: Mapping[str, object] = field(default_factory=dict)
    drawn_on: str = ""  # "" for what is said of all
    labels: tuple[Path, ...] = ()  # more than one is an error, of this stack
    stated_patient: str = ""
    patient: str = ""  # p0001
    name: str = ""  # p0001_s01

    @property
    def folder(self) -> Path:
        """Return the folder that holds all files."""
        return Path(commonpath([file.parent for file in self.files]))

    @property
    def place(self) -> str:
        """Return what names the stack in a message: its folder and series, or its file."""
        return str(self.files[0]) if len(self.files) == 1 else f"{self.folder} (series {self.series_uid})"


@dataclass(frozen=True)
class Plan:
    """Hold the stacks of a conversion, the label objects that refer to none of them, and the damaged files."""

    stacks: tuple[Stack, ...]
    orphans: tuple[Path, ...] = ()
    unreadable: tuple[Path, ...] = ()


def plan_stacks(
    scan: Scan,
    *,
    with_labels: bool = True,
    label_pattern: str | None = None,
    table: Sequence[Mapping[str, str]] = (),
    group_by: str = "auto",
    seed: int = 0,
    series: Sequence[str] = (),
    select: Mapping[str, object] | None = None,
) -> Plan:
    """Plan the conversion of what a scan has found.

    To which a SEG or RTSTRUCT belongs, `labels.images_of` says. Other labels are found by `label_pattern` or named in
    the table, which comes before both.

    Args:
        scan: of `find_series` with `KEYWORDS`.
        with_labels: look for labels at all.
        label_pattern: path relative to the folder of a stack, with {folder} (its name), {stem} (of its first file),
            {series_uid} and {study_uid}, such as "../labels/{folder}.nii.gz".
        table: what `read_table` returned.
        group_by: how patients are told apart, as for `group_patients`.
        seed: decides in which order patients are numbered.
        series: texts that stand for the series to convert, see `is_meant`; none for all.
        select: which slices of a series to read where the table has nothing for it.

    Raises:
        PyrasegError: no series is meant, a row of the table matches nothing, the pattern is no pattern, or patients
            cannot be told apart.
    """
    meant = those_meant(scan.series, series, scan.path)
    split = {place: _stacks_of(one) for place, one in enumerate(scan.series)}
    orphans: tuple[Path, ...] = ()
    if with_labels:  # against all series: a label of one that is left out belongs to no other
        split, orphans = _by_reference(scan.label_objects, split)
    stacks = [
        replace(stack, select=select or {})
        for place, one in enumerate(scan.series)
        if one in meant
        for stack in split[place]
    ]
    stacks, named = _apply_table(stacks, table, scan.path)
    if with_labels:
        given = {label for stack in named for label in stack.labels}
        orphans = tuple(path for path in orphans if path.resolve() not in given)
        stacks = [
            stack if stack in named else replace(stack, labels=_labels_of(stack, label_pattern)) for stack in stacks
        ]
    return Plan(_named(stacks, group_by, seed), orphans, scan.skipped_files.get("unreadable", ()))


def read_table(path: str | Path) -> list[dict[str, str]]:
    """Read a CSV with the column `series` and one or more of `label`, `patient`, `select` and `drawn_on`.

    `series` is a Series Instance UID, a number or a description, or the path of its folder or file in the tree. A label
    is a path relative to the CSV; an empty one says that there is none. `select` chooses a phase:
    ``AcquisitionNumber=2``, several with a semicolon between them. Two rows of one series make two stacks of it.

    Raises:
        PyrasegError: the file is absent, no CSV, has another column, or names a label that does not exist.
    """
    path = Path(path).expanduser()
    remedy = f"Write a table with 'series' and some of {', '.join(COLUMNS[1:])}, separated by commas."
    rows = read_csv(path, ["series"], remedy=remedy)
    columns = [column for column in (rows[0] if rows else ()) if column is not None]
    if (rows and len(columns) < 2) or {*columns} - {*COLUMNS} or any(None in (*row, *row.values()) for row in rows):
        raise PyrasegError(
            f"The table {path} has the columns {', '.join(columns)} or a row with more or fewer. {remedy}"
        )
    rows = [{name: value.strip() for name, value in row.items()} for row in rows]
    for row in rows:
        if row.get("label"):
            row["label"] = str((path.parent / row["label"]).resolve())
            if not Path(row["label"]).exists():
                raise PyrasegError(f"The table {path} names the label {row['label']}, which does not exist.")
    return rows


def _stacks_of(series: Series) -> list[Stack]:
    """Return a series as one stack, or file by file where no file has a patient position.

    The files of a concatenation are one image (PS3.3 C.7.6.16.1.3), and so stay together.
    """
    if any(_has_place(header) for header in series.headers):
        return [Stack(*_called(series), series.files, series.headers)]
    images: dict[object, dict[Path, Dataset]] = defaultdict(dict)
    for file, header in zip(series.files, series.headers, strict=True):
        images[str(header.get("ConcatenationUID") or "") or file][file] = header
    return [Stack(*_called(series), tuple(parts), tuple(parts.values())) for parts in images.values()]


def _called(series: Series) -> tuple[str, str, str, str]:
    return series.view_of or series.uid, series.number, series.description, series.study_uid


def _has_place(header: Dataset) -> bool:
    try:
        return any(plane is not None for plane in frame_planes(header))
    except PyrasegError:  # A malformed place is for the reading of the series to tell.
        return True


def _apply_table(
    stacks: list[Stack], table: Sequence[Mapping[str, str]], root: Path
) -> tuple[list[Stack], list[Stack]]:
    """Return the stacks as the table says, and those of them whose label it says."""
    result = {place: [] for place in range(len(stacks))}
    for row in table:
        places = [place for place, stack in enumerate(stacks) if _is_named(stack, row["series"], root)]
        uids = {stacks[place].series_uid for place in places}
        if len(uids) != 1:
            found = f"{len(uids)} series, name one by its UID" if uids else "no series"
            raise PyrasegError(f"The table names {row['series']!r}, which is {found} below {root}. Correct the table.")
        for place in places:
            stack = replace(
                stacks[place],
                stated_patient=row.get("patient", ""),
                select=read_selection(row.get("select", "")) or stacks[place].select,
                drawn_on=_drawn_on(row),
            )
            if "label" in row:
                stack = replace(stack, labels=(Path(row["label"]),) if row["label"] else ())
            result[place].append((stack, "label" in row))
    pairs = [pair for place, stack in enumerate(stacks) for pair in (result[place] or [(stack, False)])]
    return [stack for stack, _ in pairs], [stack for stack, has_label in pairs if has_label]


def _is_named(stack: Stack, series: str, root: Path) -> bool:
    path = (root / series).resolve()
    if any(path in (file.resolve(), file.resolve().parent) for file in stack.files):
        return True
    return is_meant([series], uids=[stack.series_uid], number=stack.series_number, description=stack.series_description)


def _drawn_on(row: Mapping[str, str]) -> str:
    drawn_on = row.get("drawn_on", "")
    if drawn_on not in ("", *DRAWN_ON):
        raise PyrasegError(f"The table has {drawn_on!r} under drawn_on; it can be {' or '.join(DRAWN_ON)}.")
    return drawn_on


def _by_reference(
    objects: Sequence[Path], stacks: Mapping[int, Sequence[Stack]]
) -> tuple[dict[int, list[Stack]], tuple[Path, ...]]:
    """Return the stacks of each series with the label objects that refer to them, and those that refer to none."""
    images = [ImageUids.of_images(stack.headers) for of_series in stacks.values() for stack in of_series]
    referring, orphans = defaultdict(list), []
    for path in objects:
        places = images_of(read_references(path), images)
        for place in places:
            referring[place].append(path)
        if not places:
            orphans.append(path)
    labels = (tuple(referring[place]) for place in range(len(images)))
    labeled = {
        series: [replace(stack, labels=next(labels)) for stack in of_series] for series, of_series in stacks.items()
    }
    return labeled, tuple(orphans)


def _labels_of(stack: Stack, pattern: str | None) -> tuple[Path, ...]:
    path = None if pattern is None else _fill(pattern, stack)
    return (*stack.labels, path) if path and path.exists() and path not in stack.labels else stack.labels


def _fill(pattern: str, stack: Stack) -> Path | None:
    """Return the path that a pattern stands for; None where it needs a UID and the stack has none."""
    values = {"folder": stack.folder.name, "stem": without_suffix(stack.files[0].name)}
    known = "{folder}, {stem}, {series_uid} and {study_uid}"
    values |= {"series_uid": stack.series_uid, "study_uid": stack.study_uid}
    try:
        path = (stack.folder / pattern.format(**values)).resolve()
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise PyrasegError(f"The label pattern {pattern!r} may hold {known}.") from error
    asked = [values[name] for name in ("series_uid", "study_uid") if f"{{{name}}}" in pattern]
    return path if all(map(_UID.fullmatch, asked)) else None


def _named(stacks: Sequence[Stack], group_by: str, seed: int) -> tuple[Stack, ...]:
    """Give each stack the number of its patient, in a random order, and its own among those of the patient."""
    identities = [Identity.of(stack.headers[0], stack.place, stack.stated_patient) for stack in stacks]
    groups = group_patients(identities, group_by, naming="in a --table")
    patients = list(dict.fromkeys(groups))
    numbers = dict(zip(patients, np.random.default_rng(seed).permutation(len(patients)) + 1, strict=True))
    seen: Counter[str] = Counter()
    named = []
    for stack, group in zip(stacks, groups, strict=True):
        patient = f"p{numbers[group]:04}"
        seen[patient] += 1
        named.append(replace(stack, patient=patient, name=f"{patient}_s{seen[patient]:02}"))
    return tuple(named)
