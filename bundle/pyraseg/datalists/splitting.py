# SPDX-License-Identifier: Apache-2.0
"""Split the cases of a data set into parts, never the cases of a patient, and refuse parts that share anything."""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from os.path import relpath
from pathlib import Path
from typing import Any

import numpy as np

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.datalists.duplicates import Duplicate

#: The parts of a three-way split, as MONAI's Decathlon lists name them.
SPLITS = ("training", "validation", "test")
#: How many pairs a message names.
NAMED = 10


def random_split(items: list[dict[str, Any]], shares: Sequence[float], seed: int) -> dict[str, list[dict[str, Any]]]:
    """Split three ways at random, by patient.

    Args:
        items: of a data list, with their patients.
        shares: of the patients, in training, validation and test.
        seed: the same seed gives the same split of the same patients.

    Raises:
        PyrasegError: the shares are not three that sum to 1.

    >>> items = [{"image": f"{name}.png", "patient": name[0]} for name in ("a1", "a2", "b1", "c1", "d1")]
    >>> parts = random_split(items, [0.5, 0.25, 0.25], seed=0)
    >>> [sorted({item["patient"] for item in part}) for part in parts.values()]
    [['a', 'c'], ['b'], ['d']]
    """
    check_shares(shares)
    patients = np.array(sorted({item["patient"] for item in items}))
    order = np.random.default_rng(seed).permutation(len(patients))
    ends = np.rint(np.cumsum(shares) * len(patients)).astype(int)
    parts = zip(SPLITS, np.split(order, ends[:-1]), strict=True)
    return {split: [item for item in items if item["patient"] in patients[part]] for split, part in parts}


def check_shares(shares: Sequence[float]) -> None:
    """Refuse shares that are no three-way split."""
    if len(shares) != len(SPLITS) or min(shares) < 0 or not np.isclose(sum(shares), 1):
        raise PyrasegError(f"split_shares must be three shares that sum to 1, got {list(shares)}.")


def stratified_parts(
    patients: Sequence[str], classes: Sequence[Collection[str]], shares: Sequence[float], seed: int
) -> np.ndarray:
    """Return the part of each of N cases, so that every part has its share of the cases with each class.

    Patients are placed one by one, those with the rarest class that is left first, into the part that lacks most of
    its share of that class: iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of
    Multi-Label Data", ECML PKDD 2011), with patients in the place of single examples. No part with a share stays empty.

    Args:
        patients: of each case.
        classes: that each case holds; none of them counts as a class of its own.
        shares: of the cases, one a part.
        seed: breaks ties.

    Returns:
        (N,) indices of parts.

    Raises:
        PyrasegError: there are fewer patients than parts with a share.
    """
    share_of = np.asarray(shares, float)
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    if len(names) < np.count_nonzero(shares):
        raise PyrasegError(
            f"{len(names)} patients cannot be split into {np.count_nonzero(shares)} parts: each needs at least one. "
            "Give fewer parts or add cases."
        )
    kinds = sorted({name for held in classes for name in held})
    holds = np.array([[name in held for name in kinds] + [not held, True] for held in classes], float)  # the last: all
    counts = np.zeros((len(names), holds.shape[1]))
    np.add.at(counts, member, holds)
    lacking = share_of[:, None] * counts.sum(axis=0)  # (parts, classes), in cases
    part_of = np.full(len(names), -1)
    random = np.random.default_rng(seed)
    left = random.permutation(len(names))
    while left.size:
        remaining = counts[left]
        carriers = (remaining > 0).sum(axis=0)
        rarest = int(np.where(carriers > 0, carriers, np.inf).argmin())
        # Of its carriers the one with most cases, while there is room for it.
        patient = left[np.where(remaining[:, rarest] > 0, remaining[:, -1], 0).argmax()]
        empty = np.flatnonzero((share_of > 0) & ~np.isin(np.arange(len(share_of)), part_of))
        allowed = empty if empty.size >= left.size else np.flatnonzero(share_of > 0)
        # A part that has room for the patient, and of those the one that lacks the largest fraction of its share: so
        # patients with many cases and those with few are spread alike, and one with half of all cases goes to training.
        told_by = [rarest, -1]
        room = (lacking[:, told_by] >= counts[patient, told_by]).all(axis=1)
        ranks = [(room[part], *lacking[part, told_by] / share_of[part], random.random(), part) for part in allowed]
        part_of[patient] = part = max(ranks)[-1]
        lacking[part] -= counts[patient]
        left = left[left != patient]
    return part_of[member]


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
