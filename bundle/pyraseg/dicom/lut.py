# SPDX-License-Identifier: Apache-2.0
"""Read and apply lookup tables: one set of rules for modality, VOI and palette tables."""

import numpy as np
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.headers import is_little_endian


def read_descriptor(values: object, *, signed: bool, where: str) -> tuple[int, int, int]:
    """Return (number of entries, first value mapped, bits per entry) of a LUT descriptor.

    0 entries mean 65536. Entries and bits are unsigned whatever the VR says; the first value is signed where the input
    of the table may be negative. Files disagree about the VR, so a value beyond 32767 is read as its two's complement
    when ``signed`` is set (PS3.3 C.11.1.1, C.11.2.1.1).
    """
    try:
        entries, first, bits = (int(v) for v in values)
    except (TypeError, ValueError) as error:
        raise PyrasegError(f"{where}: a lookup table's descriptor does not hold three numbers.") from error
    if not 1 <= bits & 0xFFFF <= 16:
        raise PyrasegError(f"{where}: a lookup table has {bits} bits per entry; 1 to 16 are possible.")
    if signed and first > 0x7FFF:
        first -= 0x10000
    return entries & 0xFFFF or 0x10000, first, bits & 0xFFFF


def read_entries(data: object, count: int, bits: int, *, little_endian: bool, where: str) -> np.ndarray:
    """Return the entries of a table as uint16 ``(count,)``, from numbers (VR US) or raw bytes (VR OW).

    Tables of 8 bits come with one entry in each 16-bit word, or with two packed in it.
    """
    if isinstance(data, bytes | bytearray):
        packed = bits <= 8 and len(data) < 2 * count
        table = np.frombuffer(data[: len(data) - (0 if packed else len(data) % 2)], "u1" if packed else "u2")
        if not packed and not little_endian:
            table = table.byteswap()
        table = table.astype(np.uint16)
    else:
        try:
            table = np.atleast_1d(np.asarray(data, dtype=np.int64)).astype(np.uint16)
        except (TypeError, ValueError) as error:
            raise PyrasegError(f"{where}: a lookup table holds no numbers.") from error
        if bits <= 8 and table.size == (count + 1) // 2 < count:
            table = table.astype("<u2").view("u1").astype(np.uint16)
    if table.size < count:
        raise PyrasegError(f"{where}: a lookup table declares {count} entries and holds {table.size}.")
    return table[:count]


def read_table(item: Dataset, root: Dataset, *, signed: bool, where: str) -> tuple[int, int, np.ndarray]:
    """Return (first value mapped, bits, entries uint16) of an item with LUT Descriptor and LUT Data."""
    count, first, bits = read_descriptor(item.get("LUTDescriptor"), signed=signed, where=where)
    little = is_little_endian(root)
    return first, bits, read_entries(item.get("LUTData"), count, bits, little_endian=little, where=where)


def look_up(values: np.ndarray, first: int, entries: np.ndarray) -> np.ndarray:
    """Map values through a table; values before its start or beyond its end take the first or last entry.

    Values that are not whole numbers take the nearest entry.
    """
    last = first + len(entries) - 1
    index = np.clip(values, first, last) if values.dtype.kind == "f" else np.clip(values.astype(np.int64), first, last)
    return entries[(np.rint(index) - first).astype(np.intp)]
