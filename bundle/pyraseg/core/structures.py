# SPDX-License-Identifier: Apache-2.0
"""What a network finds: classes that exclude each other, or regions of several classes, which overlap."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bundle.pyraseg.core.errors import PyrasegError, nearest_hint

#: Regions whose set fits into a label value; 255, with all eight bits, stays what it is of classes: unknown.
MOST_REGIONS = 7
#: Probability above which a voxel belongs to a region.
THRESHOLD = 0.5


class Structures:
    """The structures that a network has channels for, and what the values of its label maps mean.

    Without regions they are the classes: a value is the index of one. With regions, such as whole and enhancing tumor,
    a value is the set of the regions that a voxel lies in, in binary: 1 for the first one, 2 for the second, 4 for the
    third, so 3 is in both of the first two. So a label map of either kind has one uint8 a voxel, through resampling,
    memory bounds and graphs, and `mask` tells of either where a structure is.

    Args:
        class_names: names of all classes of the labels, background first.
        regions: the classes that each region consists of, by its name; None where classes are predicted.

    Attributes:
        names: of the background and of all structures; a structure is known by its place here, from 1 on.
        overlapping: whether they are regions.
        table: label value of each class index, (256,) uint8; what is no class, such as 255 for unknown, stays.

    Raises:
        PyrasegError: a region has no name of its own, no classes, or a class that is none; or there are too many.

    >>> names = ["background", "edema", "core", "enhancing"]
    >>> tumor = Structures(names, {"whole": ["edema", "core", "enhancing"], "enhancing": ["enhancing"]})
    >>> tumor.names, tumor.channels
    (['background', 'whole', 'enhancing'], 2)
    >>> values = tumor.table[np.array([0, 1, 2, 3])]
    >>> values.tolist(), tumor.mask(values, 2).tolist()
    ([0, 1, 1, 3], [False, False, False, True])
    """

    def __init__(self, class_names: Sequence[str], regions: Mapping[str, Sequence[str]] | None = None) -> None:
        self.class_names = list(class_names)
        self.overlapping = regions is not None
        self.names = self.class_names if regions is None else [self.class_names[0], *regions]
        self.table = np.arange(256, dtype=np.uint8)
        self._members: list[list[int]] = []
        if regions is None:
            return
        self._check(regions)
        self._members = [[self.class_names.index(name) for name in classes] for classes in regions.values()]
        self.table[: len(self.class_names)] = [
            sum(1 << place for place, members in enumerate(self._members) if index in members)
            for index in range(len(self.class_names))
        ]

    def _check(self, regions: Mapping[str, Sequence[str]]) -> None:
        if not isinstance(regions, Mapping) or not regions:
            raise PyrasegError(
                f"`regions` is {regions!r}. Give the classes of each region by its name, such as "
                '{"whole tumor": ["edema", "core"], "tumor core": ["core"]}, or null.'
            )
        if len(regions) > MOST_REGIONS:
            raise PyrasegError(f"`regions` has {len(regions)} of them, and there is room for {MOST_REGIONS}.")
        folded = [str(name).strip().casefold() for name in (self.class_names[0], *regions)]
        if len(set(folded)) < len(folded) or not all(folded):
            raise PyrasegError(
                f"Regions need names that differ from each other and from {self.class_names[0]!r}, not {list(regions)}."
            )
        found = self.class_names[1:]
        for name, classes in regions.items():
            if isinstance(classes, str) or not classes or len(set(classes)) < len(classes):
                raise PyrasegError(f"The region {name!r} has {classes!r}. List its classes, of {found}, each once.")
            if odd := [one for one in classes if one not in found]:
                raise PyrasegError(
                    f"The region {name!r} has {odd[0]!r}, which is no class of {found}.{nearest_hint(odd[0], found)}"
                )

    @property
    def channels(self) -> int:
        """Return how many channels the network has: one a class with the background, or one a region."""
        return len(self.names) - self.overlapping

    def channel(self, number: int) -> int:
        """Return the channel of a structure."""
        return number - self.overlapping

    def mask(self, values: Any, number: int) -> Any:
        """Return where a structure is in a label map, an array or a tensor of any shape, bool."""
        return (values & (1 << (number - 1))) != 0 if self.overlapping else values == number

    def annotated(self, of_classes: np.ndarray) -> np.ndarray:
        """Return which structures cases were annotated for, (..., K) bool, from the same of the classes.

        A region is known where all its classes are: where one was left out, it may lie wherever the label is 0.
        """
        if not self.overlapping:
            return of_classes
        known = [of_classes[..., members].all(axis=-1) for members in self._members]
        return np.stack([of_classes[..., 0], *known], axis=-1)

    def outside(self, counts: np.ndarray) -> dict[tuple[str, str], float]:
        """Return by which share each region lies outside one that holds all its classes, where it does.

        Args:
            counts: voxels of each label value, (256,).

        Returns:
            By the names of the inner and of the outer region.
        """
        found = {}
        for inner, outer in itertools.permutations(range(len(self._members)), 2):
            if set(self._members[inner]) <= set(self._members[outer]):
                inside = values_of(inner + 1, self.channels, overlapping=True)
                wrong = [value for value in inside if not value >> outer & 1]
                if counts[wrong].any():
                    share = float(counts[wrong].sum() / counts[inside].sum())
                    found[self.names[inner + 1], self.names[outer + 1]] = share
        return found

    @property
    def uppermost(self) -> np.ndarray:
        """Return which structure a picture shows for each label value, (256,) uint8: of several the last one."""
        values = np.arange(256, dtype=np.uint8)
        if self.overlapping:
            values[: 1 << self.channels] = [value.bit_length() for value in range(1 << self.channels)]
        return values

    @property
    def classes(self) -> np.ndarray:
        """Return which class each label value stands for, (256,) uint8, where there is room for one value a voxel.

        Regions that a class has are that class. Others, which no label has, are what distinguishes the last of the
        regions: its class that is in the fewest.
        """
        values = np.arange(256, dtype=np.uint8)
        if not self.overlapping:
            return values
        count = len(self.class_names)
        shares = [sum(index in members for members in self._members) for index in range(count)]
        own = [min(members, key=shares.__getitem__) for members in self._members]
        exact = {int(self.table[index]): index for index in reversed(range(count))}
        for value in range(1 << self.channels):
            values[value] = exact.get(value, own[value.bit_length() - 1])
        return values


def values_of(number: int, count: int, *, overlapping: bool) -> list[int]:
    """Return the label values in which a structure is.

    Args:
        number: of the structure, from 1 on.
        count: of all structures, without the background.
        overlapping: whether values are sets of regions, see `Structures`.

    >>> values_of(2, 3, overlapping=False), values_of(2, 3, overlapping=True)
    ([2], [2, 3, 6, 7])
    """
    if not overlapping:
        return [number]
    return [value for value in range(1 << count) if value >> (number - 1) & 1]


def region_values(probabilities: Any, values: Any) -> Any:
    """Write into a label map of zeros which regions each voxel lies in: those with a probability above 0.5.

    Args:
        probabilities: of each region, (R, ...): an array or a tensor, or arrays one after the other.
        values: (...) uint8, of the same kind; it is returned.

    >>> region_values(np.array([[0.9, 0.6, 0.5], [0.8, 0.1, 0.7]]), np.zeros(3, np.uint8)).tolist()
    [3, 1, 2]
    """
    for place, probability in enumerate(probabilities):
        values[probability > THRESHOLD] += 1 << place
    return values
