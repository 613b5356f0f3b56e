# SPDX-License-Identifier: Apache-2.0
"""The types of a segmentation (PS3.3 C.8.20.2.3), and what each can hold."""

import numpy as np

from bundle.pyraseg.core import PyrasegError, nearest_hint

#: One bit a pixel and segment, a share a pixel and segment, or one segment number a pixel.
TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")
#: What a probability of 1 is stored as (Maximum Fractional Value).
ONE = 255


def require_seg_type(name: str, *, overlapping: bool) -> None:
    """Refuse a type that there is not, or that cannot hold segments that overlap.

    Args:
        name: one of `TYPES`.
        overlapping: the segments are regions, see `core.Structures`.

    Raises:
        PyrasegError: see above.
    """
    if name not in TYPES:
        raise PyrasegError(
            f"There is no DICOM SEG of type {name!r}; there are {', '.join(TYPES)}.{nearest_hint(name, TYPES)}"
        )
    if name == "LABELMAP" and overlapping:
        raise PyrasegError(
            "A DICOM SEG of type LABELMAP has one segment a pixel, and the regions of this model overlap. Write them "
            "as BINARY, or as FRACTIONAL."
        )


def stored_fractions(probabilities: np.ndarray) -> np.ndarray:
    """Return probabilities from 0 to 1 in the steps of 1/255 that a FRACTIONAL segmentation stores, float32.

    Halves go down, so that half of the maximum is reached by probabilities above 0.5 alone, which are those that make a
    region, and of two classes the one that is taken.

    >>> np.rint(stored_fractions(np.array([0, 0.5, 0.501, 1])) * ONE).astype(int).tolist()
    [0, 127, 128, 255]
    """
    steps = np.multiply(probabilities, ONE, dtype=np.float32)
    steps -= np.float32(0.5)
    np.ceil(steps, out=steps)
    np.clip(steps, 0, ONE, out=steps)
    steps /= np.float32(ONE)
    return steps


def each_region(values: np.ndarray, segments: int) -> np.ndarray:
    """Return where each region is, (N, rows, columns, segments) uint8, of label values, see `core.Structures`."""
    return np.stack([values >> place & 1 for place in range(segments)], axis=-1)
