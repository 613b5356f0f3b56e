# SPDX-License-Identifier: Apache-2.0
"""Look things up in a DICOM header: where a value stands, which file it came from, how it was encoded."""

from collections.abc import Container, Iterator, Set
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.notices import silence_libraries

silence_libraries()


def parse(dataset: Dataset, groups: Container[int] | None = None) -> None:
    """Parse every element, or those of some groups, so that damage shows now: pydicom converts values on first use.

    Raises:
        Exception: nearly any type, where the header is damaged.
    """
    for tag in list(dataset.keys()):
        if groups is None or tag.group in groups:
            value = dataset[tag].value
            for item in value if isinstance(value, Sequence) else ():
                parse(item)


def forget_malformed(dataset: Dataset, tags: Set[int]) -> None:
    """Remove elements that a file can be read without, where their values cannot be parsed."""
    for tag in dataset.keys() & tags:
        try:
            value = dataset[tag].value
            for item in value if isinstance(value, Sequence) else ():
                parse(item)
        except Exception:  # Damaged values make pydicom raise nearly every type there is.
            del dataset[tag]


def file_of(dataset: Dataset) -> str:
    """Return what names the dataset in a message: its file, or its SOP instance UID where it has none."""
    return str(getattr(dataset, "filename", None) or dataset.get("SOPInstanceUID") or "a dataset in memory")


def frame_count(dataset: Dataset) -> int:
    """Return the number of frames (1 where the attribute is absent or empty)."""
    return int(dataset.get("NumberOfFrames") or 1)


def transfer_syntax(dataset: Dataset) -> UID | None:
    """Return the transfer syntax, worked out from how the file was parsed where it has no meta header."""
    declared = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    if declared:
        return declared
    parsed: dict[Any, UID] = {
        (True, True): ImplicitVRLittleEndian,
        (False, True): ExplicitVRLittleEndian,
        (False, False): ExplicitVRBigEndian,
    }
    return parsed.get(dataset.original_encoding)


def is_little_endian(dataset: Dataset) -> bool:
    """Return the byte order of values that pydicom leaves as bytes (OW); true for datasets made in memory."""
    return dataset.original_encoding[1] is not False


def items_of(dataset: Dataset, keyword: str, where: str) -> Sequence | list[Dataset]:
    """Return the items of a sequence; none where it is absent or empty.

    Raises:
        PyrasegError: the attribute is no sequence.
    """
    value = dataset.get(keyword)
    if value and not isinstance(value, Sequence):
        raise PyrasegError(f"{where}: {keyword} is no sequence. Correct the header.")
    return value or []


def functional_groups(dataset: Dataset, frame: int) -> Iterator[Dataset]:
    """Yield the functional group items of a frame: its own first, then the shared ones (PS3.3 C.7.6.16)."""
    where = file_of(dataset)
    per_frame = items_of(dataset, "PerFrameFunctionalGroupsSequence", where)
    if frame < len(per_frame):
        yield per_frame[frame]
    yield from items_of(dataset, "SharedFunctionalGroupsSequence", where)


def functional_group(dataset: Dataset, frame: int, keyword: str) -> Dataset | None:
    """Return the item of one functional group of a frame (e.g. ``PlanePositionSequence``), or None."""
    for groups in functional_groups(dataset, frame):
        for item in items_of(groups, keyword, file_of(dataset)):
            return item
    return None


#: What has a number for each frame of an image of nuclear medicine (PS3.3 C.8.4.8).
VECTORS = tuple(
    f"{name}Vector"
    for name in ("EnergyWindow", "Detector", "Phase", "Rotation", "RRInterval", "TimeSlot", "Slice", "TimeSlice")
)
#: What stands a sequence deeper than in its functional group.
DEEPER = {"DiffusionGradientOrientation": "DiffusionGradientDirectionSequence"}


def frame_value(dataset: Dataset, frame: int, keyword: str) -> object:
    """Return an attribute of a frame from its functional groups, else from the top level; None where it is absent."""
    items = frame_value(dataset, frame, DEEPER[keyword]) if keyword in DEEPER else None
    if isinstance(items, Sequence) and items:
        return items[0].get(keyword)
    for groups in functional_groups(dataset, frame):
        for element in groups:
            if isinstance(element.value, Sequence) and element.value and keyword in element.value[0]:
                return element.value[0].get(keyword)
    value = dataset.get(keyword)
    if keyword in VECTORS and isinstance(value, MultiValue | list) and frame < len(value):
        return value[frame]
    return value


def private_value(dataset: Dataset, group: int, creator: str, element: int) -> object:
    """Return the value of a private attribute; where no creator is named, of that in the first block."""
    try:
        block = dataset.private_block(group, creator)
        return block[element].value if element in block else None
    except KeyError:
        tag = (group, 0x1000 | element)
        return dataset[tag].value if tag in dataset else None


def read_numbers(item: Dataset, keyword: str, count: int, where: str) -> tuple[float, ...] | None:
    """Return ``count`` numbers, or None where the attribute is absent or empty.

    Raises:
        PyrasegError: the attribute holds another number of values, or something that is not a finite number.
    """
    try:
        value = item.get(keyword)
        if value is None or value == "":
            return None
        values = tuple(float(v) for v in (value if isinstance(value, MultiValue | list | tuple) else [value]))
    except (TypeError, ValueError, OverflowError) as error:
        raise PyrasegError(f"{where}: {keyword} is not made of numbers. Correct the header.") from error
    if not values:
        return None
    if len(values) != count or any(abs(v) == float("inf") or v != v for v in values):
        raise PyrasegError(f"{where}: {keyword} is {list(values)}, not {count} finite numbers. Correct the header.")
    return values
