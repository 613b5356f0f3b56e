# SPDX-License-Identifier: Apache-2.0
"""What a header of NIfTI says without nibabel: how many volumes a file holds."""

import gzip
import struct
import zlib
from math import prod
from pathlib import Path

#: Bytes of a NIfTI header that hold the sizes of its axes, by its own size: where they begin, and what they are.
DIMENSIONS = {348: (40, "8h"), 540: (16, "8q")}


def volume_count(path: str | Path) -> int:
    """Return how many volumes, such as times, a NIfTI holds, by its header; 1 where that cannot be told."""
    try:
        with Path(path).open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else Path(path).open("rb") as file:
            header = file.read(min(DIMENSIONS))
    except (OSError, EOFError, zlib.error):  # whoever reads the voxels says so
        return 1
    for order in "<>":
        size = struct.unpack(f"{order}i", header[:4])[0] if len(header) == min(DIMENSIONS) else 0
        if size in DIMENSIONS:
            start, form = DIMENSIONS[size]
            axes, *sizes = struct.unpack_from(f"{order}{form}", header, start)
            return prod(max(length, 1) for length in sizes[3 : max(axes, 3)])
    return 1
