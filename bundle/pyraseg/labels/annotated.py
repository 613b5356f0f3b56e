# SPDX-License-Identifier: Apache-2.0
"""Which classes somebody looked for in a case: elsewhere in its label, 0 says nothing about the others."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bundle.pyraseg.core import PyrasegError, nearest_hint


def annotated_names(item: Mapping[str, Any]) -> list[str] | None:
    """Return what an item of a data list names under "annotated", or None where it says nothing: all classes.

    Raises:
        PyrasegError: it is no list of names, or names none.
    """
    names = item.get("annotated")
    if names is None:
        return None
    if not isinstance(names, list | tuple) or not names or not all(isinstance(n, str) and n.strip() for n in names):
        raise PyrasegError(
            f"The case {item['image']} has {names!r} under 'annotated'. Name the classes that were outlined in it as a "
            'list, such as ["liver", "spleen"]; leave it out where all were; leave out a case in which none was.'
        )
    return [name.strip() for name in names]


def annotated_classes(item: Mapping[str, Any], class_names: Sequence[str]) -> np.ndarray:
    """Return which classes were annotated in the case of an item of a data list, (K,) bool.

    The background always is: it is what belongs to none of the annotated classes. Names are compared without regard to
    case.

    Args:
        item: `{"image": path, "annotated": names}`; without names all classes were.
        class_names: of all K classes, background first.

    Raises:
        PyrasegError: a name is no class, or no class besides the background is named.

    >>> annotated_classes({"image": "a.nii", "annotated": ["Spleen"]}, ["background", "liver", "spleen"]).tolist()
    [True, False, True]
    """
    names = annotated_names(item)
    if names is None:
        return np.ones(len(class_names), bool)
    places = {name.casefold(): place for place, name in enumerate(class_names)}
    odd = [name for name in names if name.casefold() not in places]
    if odd:
        raise PyrasegError(
            f"The case {item['image']} has {odd[0]!r} under 'annotated', which is no class of {list(class_names)}."
            f"{nearest_hint(odd[0], class_names)}"
        )
    annotated = np.zeros(len(class_names), bool)
    annotated[[0, *(places[name.casefold()] for name in names)]] = True
    if not annotated[1:].any():
        raise PyrasegError(
            f"The case {item['image']} is annotated for {names[0]!r} alone, so it tells nothing about any class. Name "
            "the classes that were outlined in it, or leave the case out of the data list."
        )
    return annotated


def refuse_others(found: Iterable[int], item: Mapping[str, Any], class_names: Sequence[str]) -> None:
    """Refuse a label with pixels of a class that its case was not annotated for: one of the two is wrong.

    Args:
        found: indices of classes in the label; what lies beyond the classes is not judged here.
        item: of the data list.
        class_names: background first.

    Raises:
        PyrasegError: names the case and the class.
    """
    annotated = annotated_classes(item, class_names)
    others = [class_names[index] for index in map(int, found) if index < len(annotated) and not annotated[index]]
    if others:
        named = ", ".join(name for name, there in zip(class_names, annotated, strict=True) if there)
        raise PyrasegError(
            f"The label of the case {item['image']} has pixels of the class {others[0]!r}, but the data list says that "
            f"it was annotated for others alone ({named}). Correct 'annotated' or the label {item['label']}."
        )
