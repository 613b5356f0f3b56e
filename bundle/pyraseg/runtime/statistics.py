# SPDX-License-Identifier: Apache-2.0
"""What an image looks like, in a few hundred numbers: the bundle and its runtime share this.

Of a whole image a few thousand samples are looked at, so that it costs a small part of what the network does.
"""

from functools import lru_cache

import numpy as np

#: Samples along each side that an image is looked at by; of the lines along each side, how many have their spectrum
#: taken, and how many samples of each in its middle.
GRID, LINES, LENGTH = 64, 8, 128
#: Sides of the thumbnail, quantiles of each channel, cells and directions of the gradients.
THUMBNAIL, QUANTILES, CELLS, DIRECTIONS = 8, 13, 4, 8
#: Edges of the bands of the spectrum, cycles a pixel: half an octave each.
EDGES = 0.5 * 2.0 ** np.arange(-5, 0.1, 0.5)
#: What is added to the power of a band, so that one without any has a logarithm.
FLOOR = 1e-4
#: Planes of a volume that are looked at, at most.
PLANES = 16


def planes_of(depth: int) -> list[int]:
    """Return which planes of a volume are looked at: all of a thin one, else `PLANES`, evenly spaced.

    >>> planes_of(3), planes_of(64)[:3]
    ([0, 1, 2], [2, 6, 10])
    """
    return list(range(depth)) if depth <= PLANES else _places(depth, PLANES).tolist()


def group_sizes(channels: int) -> tuple[int, int, int, int]:
    """Return how many numbers `image_statistics` has of each kind, in their order.

    >>> group_sizes(3)
    (192, 39, 20, 128)
    """
    bands = 2 * (len(EDGES) - 1)
    return channels * THUMBNAIL**2, channels * QUANTILES, bands, CELLS**2 * DIRECTIONS


def image_statistics(image: np.ndarray) -> np.ndarray:
    """Return what a plane looks like, (F,) float32: see `group_sizes`.

    First a thumbnail, then quantiles of the values, both of each channel; of the channel in the middle the logarithms
    of the spectrum along either axis, in bands of half an octave, and the square roots of the gradients' magnitudes by
    cell and by direction (as histograms of oriented gradients: Dalal and Triggs, CVPR 2005).

    Args:
        image: as the network is shown it, (C, W, H) float32.

    >>> image_statistics(np.zeros((1, 40, 50), np.float32)).shape
    (225,)
    """
    channels, width, height = image.shape
    middle = channels // 2
    rows = image.take(_places(width, GRID), axis=1)
    samples = rows.take(_places(height, GRID), axis=2)
    averaging = _averaging()
    thumbnail = averaging @ samples @ averaging.T
    values = samples.reshape(channels, -1)[:, ::4].copy()
    values.sort(axis=1)
    quantiles = values[:, _places(values.shape[1], QUANTILES)]
    lines = rows[middle, :: GRID // LINES], image[middle].take(_neighbors(height), axis=1).T
    found = thumbnail.ravel(), quantiles.ravel(), _spectra(*lines), _gradients(samples[middle])
    return np.concatenate(found, dtype=np.float32)


def _spectra(*lines: np.ndarray) -> np.ndarray:
    """Return the logarithm of the mean power of some lines (LINES, length), and of others, in each band."""
    lengths = tuple(min(some.shape[1], LENGTH) for some in lines)
    middles = np.zeros((len(lines), LINES, LENGTH), np.float32)
    for part, some, length in zip(middles, lines, lengths, strict=True):
        first = (some.shape[1] - length) // 2
        part[:, :length] = some[:, first : first + length]
    windows, counts = _windows(lengths)
    middles -= middles.sum(axis=2, keepdims=True) / counts
    middles *= windows
    found = np.fft.rfft(middles, axis=2)
    power = (found.real**2 + found.imag**2).mean(axis=1)
    return np.log(power @ _bands() / counts[..., 0] + np.float32(FLOOR)).ravel()


def _gradients(gray: np.ndarray) -> np.ndarray:
    """Return the square root of the mean magnitude of the gradients of (GRID, GRID), by cell and direction.

    A direction and its opposite are the same. Edges along the axes and the diagonals lie in the middle of a direction,
    so that rounding moves none into the next.
    """
    along, across = gray[2:, 1:-1] - gray[:-2, 1:-1], gray[1:-1, 2:] - gray[1:-1, :-2]
    magnitude = np.sqrt(along * along + across * across)
    turns = np.arctan2(across, along) * np.float32(DIRECTIONS / np.pi) + np.float32(DIRECTIONS + 0.5)
    place = _cells() + turns.astype(np.intp) % DIRECTIONS
    sums = np.bincount(place.ravel(), magnitude.ravel(), CELLS**2 * DIRECTIONS)
    return np.sqrt(sums / (GRID // CELLS) ** 2)


@lru_cache(maxsize=32)
def _places(length: int, count: int) -> np.ndarray:
    """Return where `count` samples lie, evenly spaced, on `length` positions."""
    return ((np.arange(count) + 0.5) * length / count).astype(int)


@lru_cache(maxsize=1)
def _averaging() -> np.ndarray:
    """Return the matrix that averages samples to the thumbnail, (THUMBNAIL, GRID)."""
    of_each = GRID // THUMBNAIL
    return np.repeat(np.eye(THUMBNAIL, dtype=np.float32), of_each, axis=1) / np.float32(of_each)


@lru_cache(maxsize=1)
def _cells() -> np.ndarray:
    """Return the first place of each inner sample's cell in a histogram, (GRID - 2, GRID - 2)."""
    cell = np.arange(1, GRID - 1) * CELLS // GRID
    return (cell[:, None] * CELLS + cell) * DIRECTIONS


@lru_cache(maxsize=32)
def _neighbors(length: int) -> np.ndarray:
    """Return which `LINES` columns of an image are taken: four neighbors at a time, which lie together in memory."""
    groups = _places(length, LINES // 4)[:, None] + np.arange(-2, 2)
    return np.clip(groups, 0, length - 1).ravel()


@lru_cache(maxsize=32)
def _windows(lengths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return what weighs the samples of lines of some lengths, (N, 1, LENGTH), and the lengths, (N, 1, 1)."""
    windows = np.zeros((len(lengths), 1, LENGTH), np.float32)
    for window, length in zip(windows, lengths, strict=True):
        window[0, :length] = np.hanning(length + 2)[1:-1]
    return windows, np.array(lengths, np.float32)[:, None, None]


@lru_cache(maxsize=1)
def _bands() -> np.ndarray:
    """Return what averages the power at each frequency in bands, (LENGTH // 2 + 1, B)."""
    frequencies = np.arange(LENGTH // 2 + 1) / LENGTH
    band = np.minimum(np.searchsorted(EDGES, frequencies, side="right"), len(EDGES) - 1) - 1
    matrix = (band[:, None] == np.arange(len(EDGES) - 1)).astype(np.float32)
    return matrix / matrix.sum(axis=0)
