# SPDX-License-Identifier: Apache-2.0
"""Which class of a model a label means: by its name, by a coded concept, or by a value."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from bundle.pyraseg.core import PyrasegError, nearest_hint

#: Background of a label map, CID 7163: no class, whatever its label.
BACKGROUND = Code("125040", "DCM", "Background")
#: Designators of SNOMED RT before SRT (PS3.16 section 8.1).
OLD_SNOMED = ("SNM3", "99SDM")
PARTS = ("type", "modifier", "region")


@dataclass(frozen=True)
class Region:
    """Hold what a file calls one of its regions: a segment of a SEG, an ROI of an RTSTRUCT, or a mask of its own.

    ``type``, ``modifier`` and ``region`` are coded concepts: what it is, which side, and where it lies.
    """

    name: str
    type: tuple[Code, ...] = ()
    modifier: tuple[Code, ...] = ()
    region: tuple[Code, ...] = ()

    def __str__(self) -> str:
        codes = ", ".join(f"{code.scheme_designator} {code.value} {code.meaning}".strip() for code in self.type)
        return f"{self.name!r} ({codes})" if codes else repr(self.name)


class ClassTable:
    """Map what label files hold to class indices.

    Args:
        class_names: names of all classes, background first. A region whose name is a class's belongs to it, without
            regard to case.
        label_names: what else means a class, {class: [...]}. An entry is a name, in which * and ? stand for any
            characters; a coded concept, ["SCT", "10200004"], legacy SRT codes being equal to their successors; several
            concepts that all must be there, {"type": [...], "modifier": [...], "region": [...]}; or a value of label
            maps in other formats. What the background has here is left out: a body contour, or "*" for all that is
            named nowhere else. A name decides before a code, a code before a pattern.
        overlap_order: classes that may overlap, such as ["liver", "lesion"]: the later one is kept. All others may not.

    Raises:
        PyrasegError: an entry has another form, means two classes, or names none.

    >>> table = ClassTable(["background", "liver"], {"liver": ["hep*", ["SCT", "10200004"]], "background": ["body"]})
    >>> [table.index_of(Region(name)) for name in ("Liver", "hepar", "body", "spleen")]
    [1, 1, 0, None]
    """

    def __init__(
        self,
        class_names: Sequence[str],
        label_names: Mapping[str, Sequence] | None = None,
        overlap_order: Sequence[str] | None = None,
    ) -> None:
        self.class_names = list(class_names)
        self.names: dict[str, int] = {}
        self.values: dict[int, int] = {}
        self.patterns: list[tuple[str, int]] = []
        self.codes: list[tuple[dict[str, Code], int]] = []
        for index, name in enumerate(self.class_names):
            self._add(self.names, _fold(name), index)
        for name, entries in (label_names or {}).items():
            index = self._index(name, "label_names")
            if not isinstance(entries, list | tuple):
                raise PyrasegError(f"label_names gives {name!r} {entries!r}, not a list of names, codes and values.")
            for entry in entries:
                self._add_entry(entry, index)
        order = [self._index(name, "overlap_order") for name in overlap_order or []]
        if 0 in order or len(set(order)) < len(order):
            raise PyrasegError(
                f"overlap_order must name classes other than the background, each once: {overlap_order}."
            )
        #: Place of each class in the order, (K,); -1 where it may not overlap another.
        self.ranks = np.array([order.index(k) if k in order else -1 for k in range(len(self.class_names))])

    def _index(self, name: str, option: str) -> int:
        if name not in self.class_names:
            hint = nearest_hint(name, self.class_names)
            raise PyrasegError(f"{option} has {name!r}, but the declared classes are {self.class_names}.{hint}")
        return self.class_names.index(name)

    def _add(self, mapping: dict, key: object, index: int) -> None:
        if mapping.setdefault(key, index) != index:
            both = f"{self.class_names[mapping[key]]!r} and {self.class_names[index]!r}"
            raise PyrasegError(f"{key!r} means two classes, {both}. Correct label_names or class_names.")

    def _add_entry(self, entry: object, index: int) -> None:
        if isinstance(entry, str) and not set("*?") & set(entry):
            self._add(self.names, _fold(entry), index)
        elif isinstance(entry, str):
            self.patterns.append((_fold(entry).replace("[", "[[]"), index))
        elif isinstance(entry, int) and not isinstance(entry, bool):
            self._add(self.values, entry, index)
        elif isinstance(entry, Mapping) and entry and set(entry) <= set(PARTS):
            self.codes.append(({part: self._code(code) for part, code in entry.items()}, index))
        else:
            self.codes.append(({"type": self._code(entry)}, index))

    def _code(self, pair: object) -> Code:
        if isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair):
            return comparable(Code(pair[1], pair[0], ""))
        raise PyrasegError(
            f'label_names has {pair!r}. An entry is a name, a code as ["SCT", "10200004"], codes as '
            '{"type": ["SCT", "64033007"], "modifier": ["SCT", "24028007"]} (and "region"), or a value.'
        )

    def index_of(self, region: Region) -> int | None:
        """Return the class of a region, 0 where it is to be left out, None where nothing is declared.

        Raises:
            PyrasegError: several classes claim it.
        """
        if BACKGROUND in region.type:
            return 0
        name = _fold(region.name)
        if name in self.names:
            return self.names[name]
        coded = [
            (len(codes), index)
            for codes, index in self.codes
            if all(code in getattr(region, part) for part, code in codes.items())
        ]
        found = {index for parts, index in coded if parts == max(coded)[0]}  # the most specific
        if not found:
            matching = {index for pattern, index in self.patterns if fnmatchcase(name, pattern)}
            found = matching - {0} or matching
        if len(found) > 1:
            several = [self.class_names[index] for index in sorted(found)]
            raise PyrasegError(f"{region} means several classes of label_names, {several}. Correct label_names.")
        return next(iter(found), None)

    def indices(self, regions: Mapping[int, Region], where: str, kind: str) -> dict[int, int]:
        """Return the class of each region.

        Args:
            regions: by their numbers.
            where: what holds them, for messages.
            kind: what they are, such as "segments".

        Raises:
            PyrasegError: regions that nothing is declared for.
        """
        found_as = {number: self.index_of(region) for number, region in regions.items()}
        unknown = sorted({regions[number].name for number, index in found_as.items() if index is None})
        if unknown:
            found = ", ".join(str(region) for region in regions.values())
            raise PyrasegError(
                f"{where} has {kind} named {unknown}, but the declared classes are {self.class_names}. It holds "
                f"{found}. Correct class_names, assign them to a class in label_names, or list them under "
                f"{self.class_names[0]!r} there to leave them out."
            )
        return {number: index for number, index in found_as.items() if index is not None}

    def classes_of(self, values: np.ndarray, path: object) -> np.ndarray:
        """Return the class of each value of a label map; they are indices where label_names has no values.

        Raises:
            PyrasegError: the label holds something that is no class.
        """
        found, counts = np.unique(values, return_counts=True)
        known = {0: 0, **self.values} if self.values else {index: index for index in range(len(self.class_names))}
        if self.values and ("*", 0) in self.patterns:
            known |= {value: 0 for value in found if value not in known and value == round(value)}
        unknown = [(value, count) for value, count in zip(found, counts, strict=True) if value not in known]
        if unknown:
            unit = "voxels" if values.ndim > 2 else "pixels"
            listed = f"the values {sorted(known)}" if self.values else f"the values 0 to {len(self.class_names) - 1}"
            whole = all(value == np.rint(value) for value, _ in unknown)
            remedy = (
                "Correct the label or class_names, or say which class each value is, such as "
                f'"label_names": {self._example(found)}.'
                if whole
                else "A label map holds whole numbers, so these are no classes: correct the label."
            )
            raise PyrasegError(
                f"The label {path} holds the values {values_listed(unknown, unit)}, but {listed} are declared for the "
                f"classes {self.class_names}. {remedy}"
            )
        of_found = np.array([known[value] for value in found], np.uint8)
        classes = np.empty_like(values, np.uint8)
        for index in range(values.shape[-1]):  # in turn: of what is looked up, 8 bytes a voxel are made
            classes[..., index] = of_found[np.searchsorted(found, values[..., index])]
        return classes

    def _example(self, found: np.ndarray) -> str:
        """Return label_names in which the whole numbers of a label are classes: declared ones, then others in turn."""
        known = {value: index for value, index in self.values.items() if index} or dict(
            zip(range(1, len(self.class_names)), range(1, len(self.class_names)), strict=True)
        )
        others = iter(int(value) for value in found if value == np.rint(value) and value and value not in known)
        values = {
            name: [value for value, one in known.items() if one == index and value in found] or list(islice(others, 1))
            for index, name in enumerate(self.class_names[1:], 1)
        }
        return json.dumps({name: entries for name, entries in values.items() if entries} or {self.class_names[-1]: [1]})


def values_listed(counts: Iterable[tuple[float, int]], unit: str) -> str:
    """Return values and how often each is there, for a message; a few of many.

    >>> values_listed([(205, 2950), (420, 50)], "voxels")
    '205 (2950 voxels), 420 (50 voxels)'
    """
    texts = [f"{value:.8g} ({count} {unit})" for value, count in counts]
    return ", ".join(texts[:8]) + (f" and {len(texts) - 8} others" if len(texts) > 8 else "")


class Canvas:
    """Paint regions into one label (any shape) of class indices, and tell which of them overlap.

    Args:
        table: says which classes may overlap.
        shape: of the label.
        where: what is painted, for messages.
    """

    def __init__(self, table: ClassTable, shape: tuple[int, ...], where: str) -> None:
        self.table = table
        self.where = where
        self.labels = np.zeros(shape, np.uint8)
        self.conflicts: dict[tuple[int, int], int] = {}

    def paint(self, index: int, voxels: tuple[np.ndarray, ...]) -> None:
        """Give voxels, as the indices that `numpy.nonzero` returns, to a class."""
        there = self.labels[voxels]
        ranks = self.table.ranks
        for other in np.unique(there):
            if other not in (0, index) and min(ranks[other], ranks[index]) < 0:
                pair = (min(index, int(other)), max(index, int(other)))
                self.conflicts[pair] = self.conflicts.get(pair, 0) + int((there == other).sum())
        wins = (there == 0) | (ranks[index] > ranks[there])
        self.labels[tuple(axis[wins] for axis in voxels)] = index

    def finished(self) -> np.ndarray:
        """Return the label.

        Raises:
            PyrasegError: classes overlap that `overlap_order` does not name.
        """
        if self.conflicts:
            names = self.table.class_names
            pairs = [f"{names[a]!r} and {names[b]!r} in {n} pixels" for (a, b), n in sorted(self.conflicts.items())]
            raise PyrasegError(
                f"{self.where}: {'; '.join(pairs)} overlap, and a pixel has one class. State in overlap_order which "
                "one is kept (the later one), or correct the label."
            )
        return self.labels


def read_codes(item: Dataset, keyword: str) -> tuple[Code, ...]:
    """Return the coded concepts of a sequence (PS3.3 section 8), legacy SNOMED designators as SRT."""
    found = []
    for code in item.get(keyword) or []:
        value = code.get("CodeValue") or code.get("LongCodeValue") or code.get("URNCodeValue")
        scheme, meaning = (str(code.get(name) or "") for name in ("CodingSchemeDesignator", "CodeMeaning"))
        if value:
            found.append(comparable(Code(str(value), scheme, meaning)))
    return tuple(found)


def comparable(code: Code) -> Code:
    """Return a code that pydicom compares across SRT and SCT."""
    return code._replace(scheme_designator="SRT") if code.scheme_designator in OLD_SNOMED else code


def _fold(name: str) -> str:
    return str(name).strip().casefold()
