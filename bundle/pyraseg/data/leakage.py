# SPDX-License-Identifier: Apache-2.0
"""Refuse a split in which one part knows what another asks: a shared patient, or a shared image."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from os.path import relpath
from pathlib import Path

from bundle.pyraseg.data.duplicates import Duplicate
from bundle.pyraseg.errors import PyrasegError

#: How many pairs a message names.
NAMED = 10


def refuse_shared_patients(cases: Mapping[str, Sequence[dict[str, str]]], folder: Path) -> None:
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


def refuse_duplicates(
    cases: Mapping[str, Sequence[dict[str, str]]], duplicates: Sequence[Duplicate], folder: Path, *, remedy: str
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
    listed = [(part, item["image"]) for part, items in cases.items() for item in items]
    leaks = [pair for pair in duplicates if listed[pair.first][0] != listed[pair.second][0]]
    if leaks:
        lines = []
        for pair in leaks[:NAMED]:
            (part, image), (other_part, other) = listed[pair.first], listed[pair.second]
            lines.append(f"  {relpath(image, folder)} ({part}) and {relpath(other, folder)} ({other_part}): {pair}")
        if len(leaks) > NAMED:
            lines.append(f"  and {len(leaks) - NAMED} more")
        raise PyrasegError(
            f"{len(leaks)} pairs of images in {folder} are the same or nearly so and lie in different parts of the "
            "split:\n" + "\n".join(lines) + f"\nFigures from such a split flatter. {remedy}"
        )
