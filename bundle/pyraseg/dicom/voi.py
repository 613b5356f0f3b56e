# SPDX-License-Identifier: Apache-2.0
"""Read the values of interest of an image, and apply them: windows and VOI lookup tables."""

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.headers import file_of, functional_group, items_of
from bundle.pyraseg.dicom.lut import look_up, read_table
from bundle.pyraseg.dicom.pixels import read_rescale

VOI_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True)
class VoiWindow:
    """Hold a window in rescaled units (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

    center: float
    width: float
    function: str = "LINEAR"
    explanation: str = ""

    def require_valid(self) -> None:
        """Raise PyrasegError unless the function is known and the width is allowed: LINEAR >= 1, others > 0."""
        if self.function not in VOI_FUNCTIONS:
            raise PyrasegError(f"VOI function {self.function!r} is unknown. Use one of {', '.join(VOI_FUNCTIONS)}.")
        if not (self.width >= 1 if self.function == "LINEAR" else self.width > 0):
            least = "at least 1" if self.function == "LINEAR" else "more than 0"
            raise PyrasegError(
                f"A {self.function} window of width {self.width:g} is not possible; it needs {least}. "
                "Give a center and a width of your own, or another function."
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

    They come from the Frame VOI LUT functional group of the frame or of all frames, else from the top level. Windows
    are returned as they stand, even those that :func:`apply_voi_lut` must refuse.

    Raises:
        PyrasegError: a lookup table or a window cannot be read.
    """
    where = file_of(dataset)
    item = functional_group(dataset, frame, "FrameVOILUTSequence") or dataset
    signed = _may_be_negative(dataset, frame)
    views: list[VoiWindow | VoiLut] = []
    for table in items_of(item, "VOILUTSequence", where):
        first, bits, entries = read_table(table, dataset, signed=signed, where=where)
        views.append(VoiLut(first, bits, tuple(entries.tolist()), str(table.get("LUTExplanation") or "")))
    try:
        centers = [float(v) for v in _values(item, "WindowCenter")]
        widths = [float(v) for v in _values(item, "WindowWidth")]
    except (TypeError, ValueError) as error:
        raise PyrasegError(f"{where}: WindowCenter or WindowWidth is not a number. Correct the header.") from error
    if len(centers) != len(widths):
        raise PyrasegError(f"{where}: {len(centers)} window centers and {len(widths)} widths. Correct the header.")
    names = [str(v) for v in _values(item, "WindowCenterWidthExplanation")]
    names += [""] * (len(centers) - len(names))
    function = str(item.get("VOILUTFunction") or "LINEAR").upper()
    windows = zip(centers, widths, names, strict=False)
    return (*views, *(VoiWindow(center, width, function, name) for center, width, name in windows))


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
    center, width = (voi.center - 0.5, voi.width - 1) if voi.function == "LINEAR" else (voi.center, voi.width)
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
