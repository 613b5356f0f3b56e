# SPDX-License-Identifier: Apache-2.0
"""A table of the classes that were annotated in each case, and how many cases were annotated for each class."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import PyrasegError, nearest_hint, read_csv

_REMEDY = 'Write the column case or patient, and the column classes, such as "liver; spleen".'


def annotated_from_csv(cases: Sequence[str], patients: Sequence[str] | None, table: Path) -> list[list[str] | None]:
    """Return for each case the classes that were annotated in it, or None where the table says nothing: all were.

    The file has the column `case` or `patient`, and `classes`, whose names are separated by semicolons or commas.

    Args:
        cases: their names.
        patients: whose they are, as the table calls them; None where nobody knows.
        table: path.

    Raises:
        PyrasegError: the file is absent, lacks a column, names what is no case or patient, names one twice with
            different classes, or gives one no class.
    """
    rows = read_csv(table, ["classes"], remedy=_REMEDY)
    kinds = [kind for kind in ("case", "patient") if rows and kind in rows[0]]
    if len(kinds) != 1:
        which = "both case and patient" if kinds else "neither case nor patient"
        raise PyrasegError(f"{table} has {which} for a column, and needs one of the two. {_REMEDY}")
    if kinds == ["patient"] and patients is None:
        raise PyrasegError(
            f"{table} names patients, and nothing tells whose the cases are. Give --patient-csv or --patient-pattern, "
            "or name cases."
        )
    keys = cases if patients is None or kinds == ["case"] else patients
    known, found = set(keys), {}
    for line, row in enumerate(rows, start=2):
        key = (row[kinds[0]] or "").strip()
        classes = [name.strip() for name in re.split("[;,]", row["classes"] or "") if name.strip()]
        if key not in known:
            # The name of a patient stays out of messages, which go into logs.
            what = f"{key!r}, which is no case.{nearest_hint(key, known)}" if kinds == ["case"] else "no known patient."
            raise PyrasegError(f"Line {line} of {table} names {what} Correct it.")
        if not classes:
            raise PyrasegError(
                f"Line {line} of {table} names no class. Leave the line out where all classes were annotated, and "
                "leave the case out of the data set where none was."
            )
        if set(found.setdefault(key, classes)) != set(classes):
            raise PyrasegError(f"Line {line} of {table} says otherwise than a line before of the same {kinds[0]}.")
    return [found.get(key) for key in keys]


def count_annotated(items: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many items name each class under "annotated", in the order of their first mention."""
    return dict(Counter(name for item in items for name in dict.fromkeys(item.get("annotated") or ())))
