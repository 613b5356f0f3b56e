# SPDX-License-Identifier: Apache-2.0
"""What the results of a run are called: every input has a name to which no other input's results can come."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

#: Results of an input NAME that may be another one's NAME.png: behind a picture of it, and behind one class of it.
PICTURES = re.compile(r"(.+)(?:_overlay|_probability_\d+)")
#: Files and folders of results, where another input may have a folder; and tables of the whole run.
RESULTS = re.compile(
    r"(.+)(?:\.png|\.nii\.gz|_overlay\.png|_(?:seg|sr|rtstruct|capture)\.dcm|_probability_\d+\.(?:png|nii\.gz)|_series"
    r"|_labels)"
)
TABLES = ("volumes.csv", "ejection_fraction.csv", "review.csv")


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return a name for the results of each input, its own one wherever no other input's results may come there.

    Two inputs collide where they share a name, also on disks that take "A" for "a", and where the picture or the
    folder that belongs to one is called as the other: the overlay of `a` is `a_overlay.png`, as the label map of a
    photograph `a_overlay` is. Then the longer of two names, or every one of a shared name, gets a number that is free.
    A folder that is called as a result is drawn into the name.

    Args:
        names: of all inputs of a run, relative to its folder, without suffix. The result depends on them and, for a
            shared name, on their order.

    >>> distinct_names(["x", "x", "x_1", "a", "a_overlay", "B", "b"])
    ['x_2', 'x_3', 'x_1', 'a', 'a_overlay_1', 'B_1', 'b_2']
    """
    keys = [_key(name) for name in names]
    shared = Counter(keys)
    order = sorted(range(len(names)), key=lambda index: (shared[keys[index]] > 1, len(keys[index]), keys[index]))
    found: dict[int, str] = {}
    taken: set[str] = set()
    claimed: set[str] = set()  # names whose results would come to a taken one
    waiting = []

    def take(index: int, name: str) -> bool:
        key = _key(name)
        rivals = set(_rivals(key))
        if key in taken or key in claimed or rivals & taken or not set(TABLES).isdisjoint(_folders(key)):
            return False
        found[index] = name
        taken.add(key)
        claimed.update(rivals)
        return True

    for index in order:
        if shared[keys[index]] > 1 or not take(index, names[index]):
            waiting.append(index)
    for index in waiting:
        name = names[index]
        if any(_is_result(folder, taken) for folder in _folders(keys[index])):
            name = name.replace("/", "_")
            if take(index, name):
                continue
        mark = "-" if PICTURES.fullmatch(f"{_key(name)}_1") else "_"
        number = 1
        while not take(index, f"{name}{mark}{number}"):
            number += 1
    return [found[index] for index in range(len(names))]


def _key(name: str) -> str:
    """Return what a disk may take for the same name: macOS and Windows ignore capitals, macOS composes accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _rivals(key: str) -> Iterator[str]:
    """Yield the names one of whose results is a result of this name, or a folder of it."""
    if match := PICTURES.fullmatch(key):
        yield match[1]
    for folder in _folders(key):
        if match := RESULTS.fullmatch(folder):
            yield match[1]


def _is_result(folder: str, taken: set[str]) -> bool:
    match = RESULTS.fullmatch(folder)
    return folder in TABLES or (match is not None and match[1] in taken)


def _folders(key: str) -> list[str]:
    return [parent.as_posix() for parent in PurePosixPath(key).parents if parent.name]
