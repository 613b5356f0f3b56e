# SPDX-License-Identifier: Apache-2.0
"""What an image looks like, in a few hundred numbers: the bundle and its runtime share this.

Of a whole image a few thousand samples are looked at, so that it costs a small part of what the network does.
"""

from functools import lru_cache
from itertools import pairwise

import numpy as np

#: Samples along each side that an image is looked at by, and lines along each side whose spectrum is taken.
GRID, LINES = 64, 32
#: Sides of the thumbnail, quantiles of each channel, cells and directions of the gradients.
THUMBNAIL, QUANTILES, CELLS, DIRECTIONS = 8, 13, 4, 8
#: Edges of the bands of the spectrum, cycles a pixel: half an octave each.
EDGES = 0.5 * 2.0 ** np.arange(-6, 0.1, 0.5)
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
    (192, 39, 24, 128)
    """
    bands = 2 * (len(EDGES) - 1)
    return channels * THUMBNAIL**2, channels * QUANTILES, bands, CELLS**2 * DIRECTIONS


def image_statistics(image: np.ndarray) -> np.ndarray:
    """Return what a plane looks like, (F,) float32: see `group_sizes`.

    First a thumbnail, then quantiles of the values, both of each channel; of the mean of the channels the logarithms of
    the spectrum along either axis, in bands of half an octave, and the square roots of the gradients' magnitudes by
    cell and by direction (as histograms of oriented gradients: Dalal and Triggs, CVPR 2005).

    Args:
        image: as the network is shown it, (C, W, H) float32.

    >>> image_statistics(np.zeros((1, 40, 50), np.float32)).shape
    (229,)
    """
    channels, width, height = image.shape
    samples = image[:, _places(width, GRID)[:, None], _places(height, GRID)]
    averaging = _averaging()
    thumbnail = averaging @ samples @ averaging.T
    quantiles = np.sort(samples.reshape(channels, -1), axis=1)[:, _places(GRID**2, QUANTILES)]
    spectra = [
        _spectrum(np.add.reduce(lines, axis=0) / np.float32(channels))
        for lines in (image[:, _places(width, LINES)], image[:, :, _places(height, LINES)].swapaxes(1, 2))
    ]
    gradients = _gradients(np.add.reduce(samples, axis=0) / np.float32(channels))
    return np.concatenate([thumbnail.ravel(), quantiles.ravel(), *spectra, gradients]).astype(np.float32)


def _spectrum(lines: np.ndarray) -> np.ndarray:
    """Return the logarithm of the mean power of lines (N, length) in each band."""
    window, bands = _bands(lines.shape[1])
    found = np.fft.rfft((lines - lines.mean(axis=1, keepdims=True)) * window, axis=1)
    power = np.mean(found.real**2 + found.imag**2, axis=0)
    return np.log(power @ bands + FLOOR)


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
def _bands(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what weighs the samples of a line, (length,), and what averages its power in bands, (length // 2 + 1, B).

    A band between two frequencies of a short line has the one that is nearest to its middle.
    """
    frequencies = np.arange(length // 2 + 1) / length
    matrix = np.zeros((len(frequencies), len(EDGES) - 1))
    for number, (low, high) in enumerate(pairwise(EDGES)):
        inside = (frequencies >= low) & ((frequencies < high) | (high == EDGES[-1]))
        if not inside.any():
            inside = np.arange(len(frequencies)) == np.abs(frequencies - np.sqrt(low * high)).argmin()
        matrix[inside, number] = 1 / inside.sum() / length
    return np.hanning(length + 2)[1:-1].astype(np.float32), matrix.astype(np.float32)
