# SPDX-License-Identifier: Apache-2.0
"""Read the CSA header of Siemens scanners, a list of named texts in a private attribute.

Its form is known from nibabel's documentation ("Siemens format DICOM with CSA header").
"""

import struct

from bundle.pyraseg.core import PyrasegError

LIMIT = 4096  # tags, and items of a tag; real headers have about 100 of either
_TAG, _ITEM = struct.Struct("<64si4siii"), struct.Struct("<iiii")


def read_csa(data: bytes) -> dict[str, list[str]]:
    """Return the texts of each tag, without the empty ones.

    Raises:
        PyrasegError: the bytes are no CSA header, or are cut short.
    """
    try:
        return _tags(bytes(data))
    except (struct.error, ValueError) as error:
        raise PyrasegError("its CSA header (0029,1010) is damaged.") from error


def _tags(data: bytes) -> dict[str, list[str]]:
    second = data[:4] == b"SV10"  # the form that has a name; the one before begins with the count of its tags
    place = 8 if second else 0
    count, _ = struct.unpack_from("<ii", data, place)
    if not 0 < count <= LIMIT:
        raise ValueError(count)
    place += 8
    tags: dict[str, list[str]] = {}
    surplus = None  # what the first form adds to lengths: the number of items of its first tag
    for _ in range(count):
        name, _, _, _, items, _ = _TAG.unpack_from(data, place)
        place += _TAG.size
        if not 0 <= items <= LIMIT:
            raise ValueError(items)
        surplus = items if surplus is None else surplus
        texts = []
        for _ in range(items):
            lengths = _ITEM.unpack_from(data, place)
            place += _ITEM.size
            length = lengths[1] if second else lengths[0] - surplus
            if length < 0 or place + length > len(data):
                raise ValueError(length)
            texts.append(_text(data[place : place + length]))
            place += -(-length // 4) * 4
        tags[_text(name)] = [text for text in texts if text]
    return tags


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("latin-1").strip()
