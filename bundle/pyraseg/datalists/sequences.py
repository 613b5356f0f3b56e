# SPDX-License-Identifier: Apache-2.0
"""Which images of a data set are the sequences of one case."""

import logging
from collections.abc import Collection, Mapping, Sequence
from os.path import commonpath
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bundle.pyraseg.core import PyrasegError, without_suffix
from bundle.pyraseg.dicom import Scan, SequenceCase, Series, find_sequences, group_files, group_series

logger = logging.getLogger(__name__)

#: What `read_sequences` returns.
Sequences = Mapping[str, Sequence[str]]
#: Of a data set whose cases have one image.
NoSequences: Sequences = MappingProxyType({})
#: Faulty cases that a message names.
MOST_NAMED = 5


def images_of_cases(
    matched: Mapping[str, Path], labels: Collection[str], sequences: Sequences, *, allow_missing: bool
) -> dict[str, dict[str, Any]]:
    """Return for each case {"image": {sequence: path}}, and "series" where a path does not tell which one is meant.

    Args:
        matched: files, and folders of one case each, by the name that stands for `{case}`.
        labels: the names of the cases that have one.
        sequences: of the model.
        allow_missing: sequences but the first may be missing.

    Raises:
        PyrasegError: a case with a label lacks a sequence, or has two for one; the first of them are named.
    """
    names = {path: name for name, path in matched.items() if path.is_file()}
    cases: dict[str, SequenceCase] = {
        name: find_sequences(path, sequences, allow_missing=allow_missing)
        for name, path in matched.items()
        if path.is_dir() and name in labels
    }
    for case in group_files(names, sequences, allow_missing=allow_missing):
        one = next(path for path in (*case.parts.values(), *case.unused) if isinstance(path, Path))
        cut = len(without_suffix(one.name)) - len(Path(case.place).name)
        cases[names[one].rpartition("/")[0] if Path(case.place) == one.parent else names[one][:-cut]] = case
    _refuse_faults([case for name, case in cases.items() if name in labels])
    return {name: _as_item(case) for name, case in cases.items() if not case.fault}


def studies_of(scan: Scan, sequences: Sequences, *, allow_missing: bool) -> dict[int, dict[str, Any]]:
    """Return the studies of a scanned folder, by the place of the series that is their first sequence: see above.

    Raises:
        PyrasegError: no study has the sequences; what each lacks is named.
    """
    places = {id(one): place for place, one in enumerate(scan.series)}
    cases = group_series(scan.series, sequences, allow_missing=allow_missing)
    whole = [case for case in cases if not case.fault]
    if not whole:
        _refuse_faults(cases)
    for case in cases:
        if case.fault:
            logger.warning("%s %s It is left out.", case.place, case.fault)
    return {places[id(next(iter(case.parts.values())))]: _as_item(case, scan.series) for case in whole}


def _refuse_faults(cases: Sequence[SequenceCase]) -> None:
    faults = [f"{case.place} {case.fault}" for case in cases if case.fault]
    if faults:
        more = f"\n  and {len(faults) - MOST_NAMED} more" if len(faults) > MOST_NAMED else ""
        raise PyrasegError(
            f"{len(faults)} of {len(cases)} cases have not the sequences of the model:\n  "
            + "\n  ".join(faults[:MOST_NAMED])
            + more
        )


def _as_item(case: SequenceCase, beside: Sequence[Series] = ()) -> dict[str, Any]:
    """Return the image of a case as an item of a data list has it."""
    others = [*beside, *(one for one in (*case.parts.values(), *case.unused) if isinstance(one, Series))]
    images, chosen = {}, {}
    for name, part in case.parts.items():
        if isinstance(part, Series):
            path, is_alone = place_of_series(part, others)
            images[name] = str(path)
            chosen |= {} if is_alone else {name: part.uid}
        elif part is not None:
            images[name] = str(part)
    return {"image": images, **({"series": chosen} if chosen else {})}


def place_of_series(series: Series, beside: Sequence[Series]) -> tuple[Path, bool]:
    """Return the path of a series, its file or its folder, and whether none of some others lies there."""
    if len(series.files) == 1:
        return series.files[0], True
    folder = Path(commonpath([file.parent for file in series.files]))
    others = [one for one in beside if one.uid != series.uid and any(folder in file.parents for file in one.files)]
    if others and not series.has_uid:
        raise PyrasegError(
            f"The series of {series.files[0]} shares its folder with {len(others)} other series, and it has no UID of "
            "its own that tells it from them. Put its files into a folder of their own."
        )
    return folder, not others
