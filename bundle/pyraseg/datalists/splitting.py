# SPDX-License-Identifier: Apache-2.0
"""Split the cases of a data set into parts, never the cases of a patient."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from bundle.pyraseg.core import PyrasegError

#: The parts of a three-way split, as MONAI's Decathlon lists name them.
SPLITS = ("training", "validation", "test")


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
    shares_of = np.asarray(shares, float)
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    if len(names) < np.count_nonzero(shares_of):
        raise PyrasegError(
            f"{len(names)} patients cannot be split into {np.count_nonzero(shares_of)} parts: each needs one at least. "
            "Ask for fewer parts or add cases."
        )
    kinds = sorted({name for held in classes for name in held})
    holds = np.array([[name in held for name in kinds] + [not held, True] for held in classes], float)  # the last: all
    counts = np.zeros((len(names), holds.shape[1]))
    np.add.at(counts, member, holds)
    lacking = shares_of[:, None] * counts.sum(axis=0)  # (parts, classes), in cases
    part_of = np.full(len(names), -1)
    random = np.random.default_rng(seed)
    left = random.permutation(len(names))
    while left.size:
        remaining = counts[left]
        carriers = (remaining > 0).sum(axis=0)
        rarest = int(np.where(carriers > 0, carriers, np.inf).argmin())
        # Of its carriers the one with most cases, while there is room for it.
        patient = left[np.where(remaining[:, rarest] > 0, remaining[:, -1], 0).argmax()]
        empty = np.flatnonzero((shares_of > 0) & ~np.isin(np.arange(len(shares_of)), part_of))
        allowed = empty if empty.size >= left.size else np.flatnonzero(shares_of > 0)
        # A part that has room for the patient, and of those the one that lacks the largest fraction of its share: so
        # patients with many cases and those with few are spread alike, and one with half of all cases goes to training.
        told_by = [rarest, -1]
        room = (lacking[:, told_by] >= counts[patient, told_by]).all(axis=1)
        ranks = [(room[part], *lacking[part, told_by] / shares_of[part], random.random(), part) for part in allowed]
        part_of[patient] = part = max(ranks)[-1]
        lacking[part] -= counts[patient]
        left = left[left != patient]
    return part_of[member]
