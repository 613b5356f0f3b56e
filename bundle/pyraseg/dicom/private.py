# SPDX-License-Identifier: Apache-2.0
"""What scanners tell in private attributes, put where the standard has a place for it: diffusion, labeling, parts.

Images that lie in one place can then be named and chosen, whoever made them. The attributes are known from the notes of
NA-MIC on diffusion in DICOM and of dcm2niix on vendors. A direction of GE is in its own frame: it tells images apart.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag

BLOCKS = range(0x10, 0x14)  # in which a creator's elements are looked for; the first is usual


class Private(NamedTuple):
    """Name private elements, and the attribute of the standard that says the same."""

    group: int
    creator: str
    elements: tuple[int, ...]
    keyword: str
    convert: Callable[..., Any]


def _number(value: Any) -> float:
    return float(value[0] if isinstance(value, MultiValue) else value)


def _vector(*values: Any) -> list[float]:
    parts = list(values[0]) if len(values) == 1 else list(values)
    x, y, z = (float(part) for part in parts)
    return [x, y, z]


def _part(value: Any) -> str:
    return ("MAGNITUDE", "PHASE", "REAL", "IMAGINARY")[int(value)]


ATTRIBUTES = (
    Private(0x0019, "SIEMENS MR HEADER", (0x0C,), "DiffusionBValue", _number),
    Private(0x0019, "SIEMENS MR HEADER", (0x0E,), "DiffusionGradientOrientation", _vector),
    Private(0x0043, "GEMS_PARM_01", (0x39,), "DiffusionBValue", lambda value: _number(value) % 100_000),  # or 1e9 more
    Private(0x0019, "GEMS_ACQU_01", (0xBB, 0xBC, 0xBD), "DiffusionGradientOrientation", _vector),
    Private(0x0043, "GEMS_PARM_01", (0x2F,), "ComplexImageComponent", _part),
    Private(0x2001, "Philips Imaging DD 001", (0x03,), "DiffusionBValue", _number),
    Private(0x2005, "Philips MR Imaging DD 001", (0xB0, 0xB1, 0xB2), "DiffusionGradientOrientation", _vector),
    Private(0x2005, "Philips MR Imaging DD 005", (0x29,), "ASLContext", lambda value: str(value).strip().upper()),
    Private(0x0065, "Image Private Header", (0x09,), "DiffusionBValue", _number),
    Private(0x0065, "Image Private Header", (0x37,), "DiffusionGradientOrientation", _vector),
)
#: All that has to be read for them.
TAGS = [
    Tag(group, element)
    for group in dict.fromkeys(private.group for private in ATTRIBUTES)
    for block in BLOCKS
    for element in (block, *(block << 8 | part for own in ATTRIBUTES if own.group == group for part in own.elements))
]
_WANTED = frozenset(TAGS)


def standardize(header: Dataset) -> None:
    """Fill attributes of the standard that a header lacks from private ones, and leave those and malformed ones out."""
    present = header.keys() & _WANTED
    if not present:
        return
    for private in ATTRIBUTES:
        if private.keyword not in header:
            with suppress(KeyError, IndexError, TypeError, ValueError):
                block = header.private_block(private.group, private.creator)
                setattr(header, private.keyword, private.convert(*(block[part].value for part in private.elements)))
    for tag in present:
        del header[tag]
