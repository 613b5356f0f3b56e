# SPDX-License-Identifier: Apache-2.0
"""What a data list says about how one case is read; it comes before what is said of all cases."""

from collections.abc import Mapping
from typing import Any

from bundle.pyraseg.core import ITK, NIFTI, PHOTOGRAPH, PyrasegError, SequencePaths
from bundle.pyraseg.dicom import ALL_PHASES, ChosenPath, read_phase, read_selection, read_wanted, selection_text
from bundle.pyraseg.labels.references import DRAWN_ON

#: Which of the series at the path of a DICOM image, which slices of it, which phase, and what its label must share with
#: it. A NIfTI may have phases, too.
CASE_OPTIONS = ("series", "select", "phase", "drawn_on")


def case_options(item: Mapping[str, Any]) -> dict[str, str]:
    """Return what an item of a data list says of how it is read, by option; nothing where it says nothing.

    Raises:
        PyrasegError: a value is none that the option takes, or the image is no DICOM.
    """
    options = {name: _text(item[name]) for name in CASE_OPTIONS if item.get(name) not in (None, "", [], {})}
    where = f"The case {item['image']}"
    of_nifti = {"phase"} if str(item["image"]).lower().endswith(NIFTI) else set()
    odd = [name for name in options if name not in of_nifti]
    if odd and str(item["image"]).lower().endswith(NIFTI + ITK + PHOTOGRAPH):
        raise PyrasegError(f"{where} has {odd[0]!r}, which is for DICOM, and is none. Leave it out.")
    try:
        read_selection(options.get("select"))
        if read_phase(options.get("phase")) == ALL_PHASES:
            raise PyrasegError("A case is one phase: give its number under 'phase'.")
    except PyrasegError as error:
        raise PyrasegError(f"{where}: {error}") from error
    if options.get("drawn_on", DRAWN_ON[0]) not in DRAWN_ON:
        raise PyrasegError(f"{where} has {options['drawn_on']!r} under 'drawn_on'; it can be {' or '.join(DRAWN_ON)}.")
    return options


def with_options(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item whose image is read as its options say, wherever its path goes.

    An image of several sequences is {name: path}; "series" and "select" then may say it of each by its name.

    Raises:
        PyrasegError: see `case_options`.
    """
    if isinstance(item["image"], Mapping):
        parts = {name: with_options(_of_sequence(item, name, path)) for name, path in item["image"].items()}
        said = next(iter(parts.values()))
        images = SequencePaths({name: part["image"] for name, part in parts.items()})
        kept = {name: value for name, value in item.items() if name != "drawn_on"}
        return {**kept, "image": images, **{name: said[name] for name in ("drawn_on",) if name in said}}
    options = case_options(item)
    choice = {name: options[name] for name in ("series", "select", "phase") if name in options}
    kept = {name: value for name, value in item.items() if name not in CASE_OPTIONS}
    return {**kept, **options, **({"image": ChosenPath(item["image"], **choice)} if choice else {})}


def choice_text(item: Mapping[str, Any]) -> str:
    """Return what tells a case from another one of the same path, to stand behind the path; often nothing.

    >>> choice_text({"image": "study", "series": "5", "select": "EchoTime=4.6"}), choice_text({"image": "study"})
    (' [5; EchoTime=4.6]', '')
    """
    image = item["image"]
    if isinstance(image, SequencePaths):  # the first sequence stands for the case
        first = next(iter(image.parts))
        item = _of_sequence({**item, "image": image.parts}, first, str(image))
    choice = [_text(item[name]) for name in ("series", "select") if item.get(name)]
    choice += [f"phase {item['phase']}"] if item.get("phase") else []
    return f" [{'; '.join(choice)}]" if choice else ""


def _of_sequence(item: Mapping[str, Any], name: str, path: str) -> dict[str, Any]:
    """Return what an item says of one of its sequences, as an item of one image."""
    said: dict[str, Any] = {option: item[option] for option in CASE_OPTIONS if option in item}
    for option in ("series", "select"):
        own = said.get(option)
        if isinstance(own, Mapping) and own.keys() <= item["image"].keys():
            said[option] = own.get(name)
    return {"image": path, **said}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return selection_text(value)
    return ";".join(read_wanted(value))
