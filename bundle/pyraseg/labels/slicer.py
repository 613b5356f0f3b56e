# SPDX-License-Identifier: Apache-2.0
"""What the header of a segmentation of 3D Slicer (.seg.nrrd) says of its segments."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.sr.coding import Code

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.labels.class_table import Region, comparable


@dataclass(frozen=True)
class SlicerSegment:
    """Hold one segment: what it is called, and the value that stands for it in which of the file's layers."""

    region: Region
    value: int
    layer: int


def slicer_segments(fields: Mapping[str, str], layers: int, where: str) -> dict[int, SlicerSegment]:
    """Return the segments by their numbers.

    A file of before 2020 gives them no values: then each is a layer of its own, whose value is 1.

    Args:
        fields: of the header, such as {"Segment0_Name": "liver", "Segment0_LabelValue": "1", "Segment0_Layer": "0"}.
        layers: that the file has.
        where: what holds them, for messages.

    Raises:
        PyrasegError: a value or a layer is none, or is missing.
    """
    numbers = sorted({int(found[1]) for key in fields if (found := re.match(r"Segment(\d+)_", key))})
    segments = {}
    for place, number in enumerate(numbers):
        texts = {key: fields.get(f"Segment{number}_{key}", "") for key in ("ID", "Name", "LabelValue", "Layer", "Tags")}
        name = texts["Name"] or texts["ID"] or str(number)
        if not texts["LabelValue"] and layers != len(numbers):
            raise PyrasegError(f"{where} does not say which value segment {name!r} has. Save it again in 3D Slicer.")
        try:
            value, layer = int(texts["LabelValue"] or 1), int(texts["Layer"] or (0 if texts["LabelValue"] else place))
        except ValueError as error:
            raise PyrasegError(f"{where} has no number for segment {name!r}: {error}. Save it again.") from error
        if not 0 <= layer < layers:
            raise PyrasegError(f"{where} has {layers} layers, and segment {name!r} is in layer {layer}. Save it again.")
        segments[number] = SlicerSegment(_region(name, texts["Tags"]), value, layer)
    return segments


def _region(name: str, tags: str) -> Region:
    """Return what a segment is: its name, and the codes of Slicer's terminology entry.

    That is seven parts between ~: the terminology, category, type and its modifier, then the anatomic context, region
    and its modifier; each code is scheme^value^meaning.
    """
    entry = re.search(r"TerminologyEntry:([^|]*)", tags)
    parts = [*(entry[1] if entry else "").split("~"), *7 * [""]]
    kind, side, place, place_side = (_code(parts[index]) for index in (2, 3, 5, 6))
    return Region(name, kind, side + place_side, place)


def _code(text: str) -> tuple[Code, ...]:
    scheme, value, meaning = [*text.split("^"), "", "", ""][:3]
    return (comparable(Code(value, scheme, meaning)),) if value else ()
