# SPDX-License-Identifier: Apache-2.0
"""Look-up tables and windows of the standard (PS3.3 C.11): to the units of a modality, and to what is shown."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.headers import file_of, functional_group, is_little_endian, items_of, read_numbers

VOI_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def read_descriptor(values: Any, *, signed: bool, where: str) -> tuple[int, int, int]:
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


def apply_modality_lut(stored: np.ndarray, dataset: Dataset, frame: int = 0, *, factor: float = 1.0) -> np.ndarray:
    """Turn stored values of one frame, of any shape, into float32 in the units of the modality (PS3.3 C.11.1).

    The Modality LUT Sequence, or Rescale Slope and Intercept, come from the Pixel Value Transformation of the frame
    or of all frames, else from the top level. Absent ones change nothing. The factor brings them into another unit.
    """
    where = file_of(dataset)
    item = functional_group(dataset, frame, "PixelValueTransformationSequence") or dataset
    for table in items_of(item, "ModalityLUTSequence", where)[:1]:
        signed = dataset.get("PixelRepresentation") == 1
        first, _, entries = read_table(table, dataset, signed=signed, where=where)
        return look_up(stored, first, entries).astype(np.float32) * np.float32(factor)
    slope, intercept = read_rescale(dataset, frame)
    try:
        with np.errstate(over="raise"):
            # In float64, so that large stored values (32 bits) lose nothing before the offset is taken away.
            values = np.multiply(stored, slope, dtype=np.float64)
            values += intercept
            if factor != 1:
                values *= factor
            return values.astype(np.float32)
    except FloatingPointError as error:
        raise PyrasegError(
            f"{where}: RescaleSlope {slope:g} and RescaleIntercept {intercept:g} make values too large. Correct them."
        ) from error


def read_rescale(dataset: Dataset, frame: int = 0) -> tuple[float, float]:
    """Return Rescale Slope and Intercept of a frame; (1, 0) where there are none."""
    where = file_of(dataset)
    item = functional_group(dataset, frame, "PixelValueTransformationSequence") or dataset
    slope = (read_numbers(item, "RescaleSlope", 1, where) or (1.0,))[0]
    intercept = (read_numbers(item, "RescaleIntercept", 1, where) or (0.0,))[0]
    if slope == 0:
        raise PyrasegError(f"{where}: RescaleSlope is 0, which would make every pixel the same. Correct the header.")
    return slope, intercept


@dataclass(frozen=True)
class VoiWindow:
    """Hold a window in rescaled units (PS3.3 C.11.2.1.2 and C.11.2.1.3); ``fault`` says why it cannot be used."""

    center: float
    width: float
    function: str = "LINEAR"
    explanation: str = ""
    fault: str = ""

    @property
    def ramp(self) -> tuple[float, float]:
        """Return center and width of the values from black to white: those of LINEAR are 0.5 and 1 less."""
        return (self.center - 0.5, self.width - 1) if self.function == "LINEAR" else (self.center, self.width)

    def require_valid(self) -> None:
        """Raise PyrasegError unless it was readable, and the width is allowed: LINEAR >= 1, others > 0."""
        if self.fault:
            raise PyrasegError(self.fault)
        if self.function not in VOI_FUNCTIONS:
            raise PyrasegError(f"VOI function {self.function!r} is unknown. Use one of {', '.join(VOI_FUNCTIONS)}.")
        if not (self.width >= 1 if self.function == "LINEAR" else self.width > 0):
            least = "at least 1" if self.function == "LINEAR" else "more than 0"
            raise PyrasegError(
                f"A {self.function} window of width {self.width:g} is not possible; it needs {least}. "
                "Give your own center and width, or another function."
            )


@dataclass(frozen=True)
class VoiLut:
    """Hold a VOI lookup table: ``data[i]``, of ``bits`` bits, belongs to the rescaled value ``first + i``."""

    first: int
    bits: int
    data: tuple[int, ...]
    explanation: str = ""


def read_voi(dataset: Dataset, frame: int = 0) -> tuple[VoiWindow | VoiLut, ...]:
    """Return the alternative views that a header offers for a frame: lookup tables first, then windows.

    They come from the Frame VOI LUT functional group of the frame or of all frames, else from the top level. What
    cannot be read is a window with a fault, which `apply_voi_lut` refuses, as it does windows that are not possible:
    most tasks use no view of the header. An empty table is none.
    """
    where = file_of(dataset)
    try:
        item = functional_group(dataset, frame, "FrameVOILUTSequence") or dataset
        tables = [table for table in items_of(item, "VOILUTSequence", where) if _holds_something(table)]
    except PyrasegError as error:
        return (VoiWindow(0, 0, fault=str(error)),)
    views: list[VoiWindow | VoiLut] = []
    for table in tables:
        try:
            first, bits, entries = read_table(table, dataset, signed=_may_be_negative(dataset, frame), where=where)
            views.append(VoiLut(first, bits, tuple(entries.tolist()), str(table.get("LUTExplanation") or "")))
        except PyrasegError as error:
            views.append(VoiWindow(0, 0, fault=str(error)))
    return (*views, *_windows(item, where))


def _holds_something(table: Dataset) -> bool:
    """Return whether an item of a sequence of tables has a table at all."""
    return any(table.get(keyword) not in (None, "", b"") for keyword in ("LUTDescriptor", "LUTData"))


def _windows(item: Dataset, where: str) -> list[VoiWindow]:
    try:
        centers = [float(v) for v in _values(item, "WindowCenter")]
        widths = [float(v) for v in _values(item, "WindowWidth")]
    except (TypeError, ValueError):
        fault = f"{where}: WindowCenter or WindowWidth is not a number. Correct the header."
        return [VoiWindow(0, 0, fault=fault)]
    if len(centers) != len(widths):
        fault = f"{where}: {len(centers)} window centers and {len(widths)} widths. Correct the header."
        return [VoiWindow(0, 0, fault=fault)]
    names = [str(v) for v in _values(item, "WindowCenterWidthExplanation")]
    names += [""] * (len(centers) - len(names))
    function = str(item.get("VOILUTFunction") or "LINEAR").upper()
    windows = zip(centers, widths, names, strict=False)
    return [VoiWindow(center, width, function, name) for center, width, name in windows]


def apply_voi_lut(values: np.ndarray, voi: VoiWindow | VoiLut) -> np.ndarray:
    """Map rescaled values, an array of any shape, to float32 in [0, 1], without inversion.

    Windows follow the equations of PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID) and C.11.2.1.3.2
    (LINEAR_EXACT) with ymin = 0 and ymax = 1; tables follow C.11.2.1.1, divided by the largest value of their bits.

    Raises:
        PyrasegError: the window is not valid (see :meth:`VoiWindow.require_valid`).
    """
    values = np.asarray(values)
    if isinstance(voi, VoiLut):
        table = np.asarray(voi.data, dtype=np.float32) / np.float32(2**voi.bits - 1)
        return look_up(values, voi.first, np.minimum(table, 1))
    voi.require_valid()
    if voi.function == "SIGMOID":
        # 1 / (1 + exp(-4 (x - c) / w)) in the form that does not overflow.
        scaled = np.multiply(np.subtract(values, voi.center, dtype=np.float32), 2 / voi.width)
        return np.tanh(scaled, out=scaled) / 2 + 0.5
    center, width = voi.ramp
    if width == 0:
        return (values > center).astype(np.float32)
    scaled = np.subtract(values, center - width / 2, dtype=np.float32)
    scaled *= np.float32(1 / width)
    return np.clip(scaled, 0, 1, out=scaled)


def _values(item: Dataset, keyword: str) -> list:
    value = item.get(keyword)
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, MultiValue | list | tuple) else [value]


def _may_be_negative(dataset: Dataset, frame: int) -> bool:
    """Return whether the input of a VOI LUT is signed, which its first value mapped then is too (PS3.3 C.11.2.1.1)."""
    transformation = functional_group(dataset, frame, "PixelValueTransformationSequence") or dataset
    if transformation.get("ModalityLUTSequence"):
        return False
    bits, signed = int(dataset.get("BitsStored") or 16), dataset.get("PixelRepresentation") == 1
    slope, intercept = read_rescale(dataset, frame)
    extremes = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return min(slope * v + intercept for v in extremes) < 0
