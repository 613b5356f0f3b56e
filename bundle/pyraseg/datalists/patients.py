# SPDX-License-Identifier: Apache-2.0
"""Whose image it is: what must stay together in a split, told by names, a table, DICOM headers or the images."""

import logging
import re
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bundle.pyraseg.core import ITK, NIFTI, PHOTOGRAPH, PyrasegError, read_csv
from bundle.pyraseg.dicom import find_series

logger = logging.getLogger(__name__)


def patients_by_pattern(items: Sequence[dict[str, str]], pattern: str) -> list[str]:
    """Return for each item what the first group of a regular expression finds in the name of its case.

    Raises:
        PyrasegError: the pattern is no regular expression, has no group, or finds nothing in some names.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise PyrasegError(f"patient_pattern {pattern!r} is no regular expression: {error}.") from error
    if expression.groups < 1:
        raise PyrasegError(f"patient_pattern {pattern!r} has no group: put what names the patient in parentheses.")
    found = [expression.search(item["patient"]) for item in items]
    silent = [item["image"] for item, match in zip(items, found, strict=True) if not (match and match.group(1))]
    if silent:
        raise PyrasegError(
            f"patient_pattern {pattern!r} finds no patient in the names of {len(silent)} cases, such as {silent[0]}."
        )
    return [match.group(1) for match in found]


def patients_from_csv(items: Sequence[dict[str, str]], table: Path) -> list[str]:
    """Return for each item the patient that a CSV file with the columns `case` and `patient` names.

    Raises:
        PyrasegError: the file is absent, lacks a column, names a case twice with two patients, or leaves a case out.
    """
    patients: dict[str, str] = {}
    for row in read_csv(table, ["case", "patient"], remedy="Write both, a line for each case."):
        case, patient = (row["case"] or "").strip(), (row["patient"] or "").strip()
        if patients.setdefault(case, patient) != patient:
            raise PyrasegError(f"{table} gives the case {case} to two patients. Give it to one.")
    absent = [item["patient"] for item in items if not patients.get(item["patient"])]
    if absent:
        raise PyrasegError(f"{table} names no patient for {len(absent)} of {len(items)} cases, such as {absent[0]}.")
    return [patients[item["patient"]] for item in items]


def are_dicom(items: Iterable[dict[str, str]]) -> bool:
    """Return whether every image is a DICOM series, file or multi-frame object, told as the reader tells it."""
    paths = [Path(item["image"]) for item in items]
    return all(path.is_dir() or not path.name.lower().endswith(NIFTI + ITK + PHOTOGRAPH) for path in paths)


def patients_from_dicom(items: Sequence[dict[str, str]], *, use_patient_id: bool = True) -> list[str]:
    """Return for each DICOM image a number that it shares with the images of the same patient.

    The same Patient ID, Study Instance UID or Frame of Reference UID is the same patient.

    Args:
        items: of a data list.
        use_patient_id: without it, study and frame of reference alone decide.

    Raises:
        PyrasegError: some images have an empty Patient ID, or all have the same one: it tells nobody apart.
    """
    headers = [
        find_series(item["image"], keywords=("PatientID",) if use_patient_id else ()).series[0].headers[0]
        for item in items
    ]
    keys: list[list[Hashable]] = [
        [(name, str(header.get(name))) for name in ("StudyInstanceUID", "FrameOfReferenceUID") if header.get(name)]
        for header in headers
    ]
    if use_patient_id:
        ids = [str(header.get("PatientID") or "").strip() for header in headers]
        what = ""
        if not all(ids):
            what = f"{ids.count('')} of {len(ids)} images have an empty Patient ID"
        elif len(set(ids)) == 1 and len(ids) > 1:
            what = f"all {len(ids)} images have the same Patient ID"
        if what:
            raise PyrasegError(
                f"{what}, so that it does not tell patients apart. Name them in a CSV file or by a pattern, or say "
                "that each study is a patient of its own (--patient-csv, --patient-pattern, --no-patients)."
            )
        keys = [[*key, ("PatientID", patient)] for key, patient in zip(keys, ids, strict=True)]
        numbers = join(keys)
        if len(set(numbers)) < len(set(ids)):
            logger.warning(
                "%d Patient IDs are %d patients: some share a study or a frame of reference",
                len(set(ids)),
                len(set(numbers)),
            )
        return numbers
    return join(keys)


def join(keys: Sequence[Iterable[Hashable]], pairs: Iterable[tuple[int, int]] = ()) -> list[str]:
    """Return a name for each of N cases, the same for cases that are linked, directly or through others.

    Names are running numbers in the order of the cases (`p0001`, ...): whom they stand for is not told.

    Args:
        keys: of each case; cases that share one are linked.
        pairs: indices of further cases that are linked.
    """
    numbers: dict[Hashable, int] = {}
    edges = [(case, len(keys) + numbers.setdefault(key, len(numbers))) for case, own in enumerate(keys) for key in own]
    edges += list(pairs)
    total = len(keys) + len(numbers)
    rows, columns = np.array(edges, int).reshape(-1, 2).T
    _, component = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), shape=(total, total)), False)
    names: dict[int, str] = {}
    return [names.setdefault(int(number), f"p{len(names) + 1:04d}") for number in component[: len(keys)]]
