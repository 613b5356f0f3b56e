# SPDX-License-Identifier: Apache-2.0
"""Resample volumes along their three axes, one after the other, in NumPy: the bundle and its runtime share this.

Grids lie over each other by their outer edges: voxel i of n has its center at (i + 0.5) / n of an axis. In memory, the
slices (the last axis, D) of a volume lie one after the other, and columns (W) run fastest.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

#: Voxels (columns, rows, slices) of a volume.
Size = Sequence[int]


@lru_cache(maxsize=8)
def shrinking_matrix(size: int, target: int) -> np.ndarray:
    """Return the matrix of an antialiased linear resize along an axis, (target, size) float32.

    Row i holds a triangle around (i + 0.5) * size / target, as wide as the voxels that it replaces and at least one
    voxel to either side, and sums to one: torch's `interpolate(mode="bilinear", antialias=True)`.

    >>> (7 * shrinking_matrix(4, 2)).round().tolist()
    [[3.0, 3.0, 1.0, 0.0], [0.0, 1.0, 3.0, 3.0]]
    """
    scale = size / target
    centers = (np.arange(target) + 0.5) * scale
    distances = (np.arange(size) + 0.5) - centers[:, None]
    weights = np.maximum(0, 1 - np.abs(distances / max(scale, 1.0)))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def empty_volume(channels: int, size: Size, dtype: np.dtype | type = np.float32) -> np.ndarray:
    """Return an array (channels, W, H, D) of zeros, in the memory order of this module."""
    return np.zeros((channels, *reversed(tuple(size))), dtype).transpose(0, 3, 2, 1)


def shrunk(slices: Iterable[np.ndarray], depth: int, size: Size) -> np.ndarray:
    """Return a volume with other voxels, linear and antialiased, from slices that come one after the other.

    Slices are held one at a time; what is held as a whole is the result.

    Args:
        slices: `depth` of them, (C, W, H) float32 each.
        depth: number of slices.
        size: voxels (W', H', D') of the result.

    Returns:
        (C, W', H', D') float32.

    >>> (100 * shrunk(np.arange(8.0).reshape(8, 1, 1, 1), 8, (1, 1, 4))[0, 0, 0]).round().tolist()
    [71.0, 250.0, 450.0, 629.0]
    """
    width, height, planes = size
    along = shrinking_matrix(depth, planes)
    result: np.ndarray | None = None
    for number, image in enumerate(slices):
        plane = np.ascontiguousarray(image.swapaxes(1, 2), dtype=np.float32)  # (C, rows, columns)
        if plane.shape[1] != height:
            plane = shrinking_matrix(plane.shape[1], height) @ plane
        if plane.shape[2] != width:
            plane = plane @ shrinking_matrix(plane.shape[2], width).T
        if result is None:
            result = empty_volume(len(plane), size)
        for target in np.flatnonzero(along[:, number]):
            there = result[..., target].swapaxes(1, 2)
            there += along[target, number] * plane
    if result is None:
        raise ValueError("A volume of no slices cannot be resampled.")
    return result


def nearest(volume: np.ndarray, size: Size) -> np.ndarray:
    """Return a volume (C, W, H, D) with other voxels, each the one whose center is nearest, as labels need it.

    Halfway between two, that of the larger index counts, as for torch's `interpolate(mode="nearest-exact")`.

    >>> nearest(np.arange(6).reshape(1, 6, 1, 1), (3, 1, 1)).ravel().tolist()
    [1, 3, 5]
    """
    columns, rows, planes = (
        (2 * np.arange(target) + 1) * count // (2 * target)
        for count, target in zip(volume.shape[1:], size, strict=True)
    )
    result = empty_volume(len(volume), size, volume.dtype)
    for target, source in enumerate(planes):
        result[..., target] = volume[..., source][:, columns[:, None], rows]
    return result


class Taps:
    """Hold between which two voxels each of a finer grid lies along an axis, and how far it is on its way.

    Args:
        count: voxels that there are.
        target: voxels that are wanted.

    >>> taps = Taps(2, 4)
    >>> taps.lower.tolist(), taps.upper.tolist(), taps.share.tolist()
    ([0, 0, 0, 1], [1, 1, 1, 1], [0.0, 0.25, 0.75, 0.0])
    """

    def __init__(self, count: int, target: int) -> None:
        places = np.clip((np.arange(target) + 0.5) * count / target - 0.5, 0, count - 1)
        self.lower = places.astype(np.int64)
        self.upper = np.minimum(self.lower + 1, count - 1)
        self.share = (places - self.lower).astype(np.float32)

    def reached(self, first: int, last: int) -> slice:
        """Return which of the wanted voxels lie next to one of those from `first` to `last`."""
        found = np.flatnonzero((self.upper >= first) & (self.lower <= last))
        return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)

    def between(self, values: np.ndarray, axis: int, part: slice = slice(None)) -> np.ndarray:
        """Return values of the wanted voxels, or a part of them, along an axis."""
        lower, upper, share = self.lower[part], self.upper[part], self.share[part]
        low = values.take(lower, axis)
        step = values.take(upper, axis)
        step -= low
        step *= share.reshape([-1 if axis == other else 1 for other in range(values.ndim)])
        low += step
        return low


def planes_between(slabs: Iterable[np.ndarray], depth: int, target: int) -> Iterator[np.ndarray]:
    """Yield the planes (C, rows, columns) of a volume with `target` planes, linear between its own `depth` planes.

    Args:
        slabs: (C, W, H, d) of consecutive planes, `depth` in all; each is let go before the next is asked for.
        depth, target: number of planes of the volume, and of those wanted.
    """
    taps = Taps(depth, target)
    own = (slab[..., k].swapaxes(1, 2) for slab in slabs for k in range(slab.shape[3]))
    lower = upper = next(own)
    at = 0  # the number of the upper plane; the lower is the one before
    for low, high, share in zip(taps.lower, taps.upper, taps.share, strict=True):
        while at < high:
            lower, upper, at = upper, next(own), at + 1
        if share == 0 or high == low:
            yield upper if low == at else lower
        else:
            yield lower + share * (upper - lower)
    for _ in own:  # so that what makes the slabs comes to its end
        pass


def enlarged(slabs: Iterable[np.ndarray], channels: int, shape: Size, size: Size) -> np.ndarray:
    """Return a volume with other voxels, linear: torch's `interpolate(mode="trilinear")`.

    Args:
        slabs: (C, W, H, d) of consecutive planes of the volume.
        channels: C.
        shape: voxels (W, H, D) of the volume.
        size: voxels (W', H', D') of the result.

    >>> volume = np.array([0.0, 1.0], np.float32).reshape(1, 2, 1, 1)
    >>> enlarged([volume], 1, (2, 1, 1), (4, 1, 1)).ravel().tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    columns, rows = Taps(shape[0], size[0]), Taps(shape[1], size[1])
    result = empty_volume(channels, size)
    for number, plane in enumerate(planes_between(slabs, shape[2], size[2])):
        result[..., number] = columns.between(rows.between(plane, 1), 2).swapaxes(1, 2)
    return result
