# SPDX-License-Identifier: Apache-2.0
"""Slices as pictures for a browser."""

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from PIL import Image

from bundle.pyraseg.dicom import VoiWindow, apply_voi_lut
from bundle.pyraseg.runtime import ClickSession

#: Percentiles that are black and white where the model has no window of its own.
ENDS = (0.5, 99.5)


def picture_of(session: ClickSession, number: int) -> tuple[bytes, str]:
    """Return a slice as it is stored as PNG, of photographs as JPEG, and the type.

    Gray values are shown through the first window of the model that is fixed, else between percentiles of the slice.
    """
    pixels = session.pixels(number)
    file = BytesIO()
    if pixels.ndim == 3:
        Image.fromarray(pixels).save(file, "JPEG", quality=92)
        return file.getvalue(), "image/jpeg"
    gray = apply_voi_lut(pixels, _window(session, pixels))
    if session.inverted:
        gray = 1 - gray
    Image.fromarray(np.rint(255 * gray).astype(np.uint8)).save(file, "PNG", compress_level=1)
    return file.getvalue(), "image/png"


def _window(session: ClickSession, pixels: np.ndarray) -> VoiWindow:
    """Return the window that a slice is shown through."""
    for window in session.model.recipe["windows"]:
        if isinstance(window, Mapping) and "center" in window:
            return VoiWindow(**window)
    black, white = np.percentile(pixels, ENDS)
    return VoiWindow((black + white) / 2, (white - black) or 1.0, "LINEAR_EXACT")
