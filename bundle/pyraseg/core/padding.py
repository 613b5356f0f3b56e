# SPDX-License-Identifier: Apache-2.0
"""Pixels outside the field of view: which they are, and statistics that leave them out."""

from collections.abc import Sequence

import numpy as np

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.core.telling import tell


def require_outside(missing: np.ndarray, names: Sequence[str]) -> None:
    """Refuse pixels without a value inside an image; outside the field of view they are padding.

    Outside is what hangs together with the edge of a slice, through other pixels without a value, face to face: within
    a slice and from slice to slice, but not through a slice without any value that has slices with values on both
    sides. How many pixels are outside is told once for each file.

    Args:
        missing: (slices, rows, columns), true where a value is NaN or infinite.
        names: of each slice's file.

    Raises:
        PyrasegError: there are such pixels inside; the message names the file, how many and where.
    """
    empty = np.logical_and.reduce(missing, axis=(1, 2))
    between = empty & ~np.logical_and.accumulate(empty) & ~np.logical_and.accumulate(empty[::-1])[::-1]
    inside = missing & ~_outside(missing & ~between[:, None, None])
    count = int(np.count_nonzero(inside))
    if count:
        number, row, column = (int(place) for place in np.argwhere(inside)[0])
        slices = int(inside.any(axis=(1, 2)).sum())
        lost = np.flatnonzero(between).tolist()
        listed = ", ".join(map(str, lost[:10])) + (f" and {len(lost) - 10} more" if len(lost) > 10 else "")
        raise PyrasegError(
            f"{names[number]} holds NaN or infinity inside the image: {count} of {inside.size} pixels, in {slices} of "
            f"{len(inside)} slices, the first at column {column}, row {row}, slice {number}, counted from 0. "
            + (f"Without any value, between slices with values: {listed}. " if lost else "")
            + "They are padding only where they are connected to the edge of a slice, and whole slices only "
            "at the first or last end of the stack. Correct what wrote the file, or leave it out."
        )
    if outside := int(np.count_nonzero(missing)):
        tell(
            f"{names[0]}: {outside} of {missing.size} pixels of the image ({100 * outside / missing.size:.3g} %) are "
            "NaN or infinite and taken for padding: they are connected to the edge of a slice. Is that outside the "
            "field of view?"
        )


def fill_outside(values: np.ndarray, name: str, *, axes: int) -> int:
    """Give pixels without a value outside the field of view the smallest value of the image, in place.

    Args:
        values: (W, H[, D], ...) of a floating-point type.
        name: of the image's file.
        axes: number of its spatial axes; a pixel lacks its value if any number behind them is NaN or infinite.

    Returns:
        The number of these pixels.

    Raises:
        PyrasegError: no pixel has a value, or some inside the image have none, see `require_outside`.
    """
    finite = np.isfinite(values)
    if finite.all():
        return 0
    if not finite.any():
        raise PyrasegError(f"{name} holds nothing but NaN or infinity. There is nothing to read: leave it out.")
    missing = ~finite.all(axis=tuple(range(axes, values.ndim)))
    slices = np.atleast_3d(missing).T
    require_outside(slices, [name] * len(slices))
    values[missing] = np.min(values, initial=np.inf, where=finite)
    return int(np.count_nonzero(missing))


def _outside(missing: np.ndarray) -> np.ndarray:
    """Return the part of a mask (slices, rows, columns) that is connected, face to face, to the edge of a slice."""
    found = np.zeros_like(missing)
    for axis in (1, 2):  # what an edge reaches in a straight line: all that is outside a convex field of view
        for turned in (np.s_[:], np.s_[::-1]):
            seen, allowed = (np.moveaxis(mask, axis, 0)[turned] for mask in (found, missing))
            seen |= np.logical_and.accumulate(allowed, axis=0)
    left = np.argwhere(missing & ~found)
    if not len(left):
        return found
    low, high = np.maximum(left.min(axis=0) - 1, 0), left.max(axis=0) + 2
    box = tuple(slice(*ends) for ends in zip(low, high, strict=True))  # of what is left, with what it may touch
    count, before = np.count_nonzero(found[box]), -1
    while count != before:
        for axis in range(3):
            seen, allowed = (np.moveaxis(mask[box], axis, 0) for mask in (found, missing))
            for order in (range(1, len(seen)), range(len(seen) - 2, -1, -1)):
                for place in order:
                    seen[place] |= seen[place - order.step] & allowed[place]
        count, before = np.count_nonzero(found[box]), count
    return found


def valid_percentiles(values: np.ndarray, percentages: Sequence[float], *, padding: int = 0) -> np.ndarray:
    """Return percentiles of an image without its padding, as NumPy interpolates them.

    Args:
        values: of all pixels, any shape.
        percentages: from 0 to 100.
        padding: how many pixels are padding, which holds the smallest value: in order of size they stand first.

    >>> valid_percentiles(np.array([5.0, 5.0, 5.0, 6.0, 7.0]), [0, 50, 100], padding=2).tolist()
    [5.0, 6.0, 7.0]
    """
    last = values.size - 1
    if padding:
        percentages = [100 * (padding + each / 100 * (last - padding)) / last for each in percentages]
    return np.percentile(values, percentages)
