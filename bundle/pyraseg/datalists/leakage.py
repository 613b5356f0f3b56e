# SPDX-License-Identifier: Apache-2.0
"""Refuse a split in which one part knows what another asks: a shared patient, or a shared image."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from os.path import relpath
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.datalists.duplicates import Duplicate

#: How many pairs a message names.
NAMED = 10


def refuse_shared_patients(cases: Mapping[str, Sequence[dict[str, Any]]], folder: Path) -> None:
    """Refuse parts that share a patient. Patients are not named: the message goes into logs.

    Raises:
        PyrasegError: a patient is in two parts.
    """
    for first, second in combinations(cases, 2):
        both = {item["patient"] for item in cases[first]} & {item["patient"] for item in cases[second]}
        if both:
            raise PyrasegError(
                f"{len(both)} patients of the data set {folder} are in {first} and in {second}. "
                "Figures from such a split mean nothing: put each patient into one part."
            )


def leaks(
    cases: Mapping[str, Sequence[dict[str, Any]]], duplicates: Sequence[Duplicate]
) -> list[tuple[tuple[str, str], tuple[str, str], Duplicate]]:
    """Return the pairs whose two images lie in different parts: (part, image), (part, image) and what they share.

    Args:
        cases: items of each part.
        duplicates: pairs of indices into the items of all parts, one after the other.
    """
    listed = [(part, item["image"]) for part, items in cases.items() for item in items]
    pairs = [(listed[pair.first], listed[pair.second], pair) for pair in duplicates]
    return [pair for pair in pairs if pair[0][0] != pair[1][0]]


def refuse_duplicates(
    cases: Mapping[str, Sequence[dict[str, Any]]], duplicates: Sequence[Duplicate], folder: Path, *, remedy: str
) -> None:
    """Refuse parts that share an image, exactly or nearly.

    Args:
        cases: items of each part.
        duplicates: pairs of indices into the items of all parts, one after the other.
        folder: that paths in the message are relative to.
        remedy: what to do about it.

    Raises:
        PyrasegError: an image is in two parts; the message names the pairs.
    """
    found = leaks(cases, duplicates)
    if found:
        lines = [
            f"  {relpath(image, folder)} ({part}) and {relpath(other, folder)} ({other_part}): {pair}"
            for (part, image), (other_part, other), pair in found[:NAMED]
        ]
        if len(found) > NAMED:
            lines.append(f"  and {len(found) - NAMED} more")
        raise PyrasegError(
            f"{len(found)} pairs of images in {folder} are the same or nearly so and lie in different parts of the "
            "split:\n" + "\n".join(lines) + f"\nFigures from such a split flatter. {remedy}"
        )
