# SPDX-License-Identifier: Apache-2.0
"""Cover a volume with overlapping tiles and blend what a network makes of each, in memory of a few tiles' depth.

Where tiles lie and how they are weighted is MONAI's `sliding_window_inference(mode="gaussian")`; the bundle and its
runtime share this.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np

#: Standard deviation of the Gaussian weights, as a share of a tile's side, and the least weight: those of MONAI.
SIGMA_SCALE = 0.125
LEAST_WEIGHT = 1e-3
#: Where a tile lies: a slice along W, H and D.
Place = tuple[slice, slice, slice]


def tile_starts(size: int, tile: int, overlap: float) -> list[int]:
    """Return where tiles begin along an axis; the last one ends with it.

    Args:
        size: voxels along the axis, at least those of a tile.
        tile: voxels of a tile.
        overlap: share of a tile that the next one covers too, from 0 to below 1.

    >>> tile_starts(100, 40, 0.5)
    [0, 20, 40, 60]
    >>> tile_starts(90, 40, 0.25)
    [0, 30, 50]
    """
    step = max(1, int(tile * (1 - overlap)))
    count = -(-(size - tile) // step) + 1
    return [min(number * step, size - tile) for number in range(count)]


def tile_weights(tile: Sequence[int]) -> np.ndarray:
    """Return the weight of each voxel of a tile, (w, h, d) float32: a Gaussian about its center, nowhere near zero."""
    weights = np.ones((), np.float32)
    for side in tile:
        places = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
        weights = weights[..., None] * np.exp(places**2 / np.float32(-2 * (SIGMA_SCALE * side) ** 2))
    return np.maximum(weights, max(float(weights.min()), LEAST_WEIGHT))


def tile_padding(size: Sequence[int], tile: Sequence[int]) -> list[tuple[int, int]]:
    """Return by how many voxels a volume is to be continued, before and behind it along each axis, to hold a tile.

    >>> tile_padding((35, 51, 40), (40, 56, 40))
    [(2, 3), (2, 3), (0, 0)]
    """
    missing = [max(0, of - count) for count, of in zip(size, tile, strict=True)]
    return [(lack // 2, lack - lack // 2) for lack in missing]


def blended(
    size: Sequence[int], tile: Sequence[int], overlap: float, logits_at: Callable[[Place], np.ndarray]
) -> Iterator[np.ndarray]:
    """Yield the logits of a volume, slab by slab along D, blended from those of overlapping tiles.

    A slab is finished when no further tile reaches it. Held are the logits of one tile's depth, W x H wide.

    Args:
        size: voxels (W, H, D) of the volume.
        tile: voxels (w, h, d) of a tile.
        overlap: share of a tile that the next one covers too, along each axis.
        logits_at: returns the logits (K, w, h, d) of a tile, by its place in the volume, continued by `tile_padding`.

    Yields:
        (K, W, H, n) float32, of the n next planes.

    >>> slabs = blended((4, 4, 9), (4, 4, 6), 0.5, lambda place: np.ones((2, 4, 4, 6)))
    >>> [slab.shape for slab in slabs]
    [(2, 4, 4, 3), (2, 4, 4, 6)]
    """
    around = tile_padding(size, tile)
    covered = [count + before + behind for count, (before, behind) in zip(size, around, strict=True)]
    starts = [tile_starts(count, side, overlap) for count, side in zip(covered, tile, strict=True)]
    inner = tuple(slice(before, before + count) for count, (before, _) in zip(size, around, strict=True))
    weights = tile_weights(tile)
    width, height, depth = covered[0], covered[1], tile[2]
    layer_weights = _zeros(width, height, depth)
    for left, front in product(starts[0], starts[1]):
        layer_weights[left : left + tile[0], front : front + tile[1]] += weights
    total_weights, total = _zeros(width, height, depth), np.empty(0, np.float32)
    for low, following in zip(starts[2], [*starts[2][1:], covered[2]], strict=True):
        for left, front in product(starts[0], starts[1]):
            place = (slice(left, left + tile[0]), slice(front, front + tile[1]), slice(low, low + depth))
            logits = logits_at(place)
            if not total.size:  # how many classes there are is known now
                total = _zeros(len(logits), width, height, depth)
            total[:, place[0], place[1]] += logits * weights
        total_weights += layer_weights
        done = following - low
        planes = slice(max(0, inner[2].start - low), min(done, inner[2].stop - low))
        if planes.start < planes.stop:
            yield total[:, inner[0], inner[1], planes] / total_weights[inner[0], inner[1], planes]
        for held in (total, total_weights):
            held[..., : depth - done] = held[..., done:].copy()
            held[..., depth - done :] = 0


def _zeros(*shape: int) -> np.ndarray:
    """Return zeros (..., W, H, D) whose planes lie one after the other in memory."""
    *channels, width, height, depth = shape
    return np.zeros((*channels, depth, height, width), np.float32).swapaxes(-1, -3)


def mirrored(network: Callable[[np.ndarray], np.ndarray], flips: Sequence[Sequence[int]]) -> Callable:
    """Return a network that averages its logits over mirror images of a tile, each mirrored back.

    Args:
        network: of a tile (C, w, h, d) -> (K, w, h, d).
        flips: for each mirror image, the axes along which it is one, counted from 0 for W.
    """

    def average(tile: np.ndarray) -> np.ndarray:
        total = network(tile)
        for axes in flips:
            dims = tuple(axis + 1 for axis in axes)
            total = total + np.flip(network(np.ascontiguousarray(np.flip(tile, dims))), dims)
        return total / np.float32(1 + len(flips))

    return average if flips else network
