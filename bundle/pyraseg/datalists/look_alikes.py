# SPDX-License-Identifier: Apache-2.0
"""Find pictures that look like frames of one scan: the same scene, moved and deformed.

Where a set names no patients, frames of one scan must still not lie in two parts of a split. Such frames are no copies:
the probe or the body has moved by some mm, tissue was pressed, speckle is another. So small tiles of one picture are
looked for in the other, all of them near one common shift, each free by a little of its own. How alike two strangers
are differs from set to set: pictures count as look-alikes if they stand out from pairs of the set drawn at random. What
this finds on real sets, and so the threshold, is in docs/data.md.
"""

import math
from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import irfft2, rfft2
from scipy.ndimage import maximum_filter
from tqdm import tqdm

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.datalists.duplicates import THINNEST, detail, gray_values, resize
from bundle.pyraseg.datalists.patients import join
from bundle.pyraseg.dicom import as_file

#: By how many spreads of strangers two pictures must be more alike than strangers are.
SPREADS = 5.5
#: Fewer pictures do not tell how alike strangers are; pairs drawn at random that do.
FEWEST, DRAWN = 20, 2000
#: Share of all pictures above which a group of look-alikes is a chain of strangers, or one patient who fills the set.
LARGEST = 0.25
#: Pixels along an edge of the square whose area a picture gets, along an edge of a tile, and from one tile to the next.
SIDE, TILE, STEP = 64, 16, 8
#: Pixels by which two pictures may be shifted, and by which a tile may lie elsewhere than this shift says.
REACH, PLAY = 12, 2
#: Share of the tiles of either picture that must lie inside the other one.
OVERLAP = 0.5
#: With how many others, those of the most similar coarse structure, each picture is compared by tiles.
NEIGHBORS = 12
#: Share of the range of gray values up to which a border counts as black, and of its pixels that may be brighter.
_BLACK, _SPECKS = 0.02, 0.02


@dataclass(frozen=True)
class LookAlike:
    """Two pictures, by their indices, that look like frames of one scan: their tiles correlate by `correlation`."""

    first: int
    second: int
    correlation: float


@dataclass(frozen=True)
class LookAlikes:
    """What was found in a set.

    Attributes:
        pairs: of look-alikes, the most alike first.
        usual: correlation of strangers, their median.
        least: correlation from which on pictures count as look-alikes.
    """

    pairs: list[LookAlike]
    usual: float
    least: float


def find_look_alikes(images: Sequence[str | Path], *, spreads: float = SPREADS) -> LookAlikes:
    """Find the pairs of pictures that look like frames of one scan.

    Black borders and brightness do not count. Frames of another magnification, rotated and mirrored ones are not found.
    Strangers are pairs drawn at random: most of them must be, so that a set of one or two scans shows nothing.

    Args:
        images: paths of pictures: photographs, and volumes and series of few slices, whose mean is the picture.
        spreads: by how much two pictures must be more alike than strangers are. One spread is from the median of
            strangers to their 16th percentile, a standard deviation if they are normally distributed; frames of one
            scan among them hardly change it.

    Raises:
        PyrasegError: an image cannot be read or is a volume, the number of spreads is not above zero, the pictures are
            too few or too much alike to tell frames of one scan from strangers, or a quarter of them would be a group.
    """
    if not spreads > 0:
        raise PyrasegError(f"Look-alikes are more alike than strangers: the spreads must be above 0, not {spreads}.")
    if len(images) < FEWEST:
        raise PyrasegError(
            f"{len(images)} pictures do not tell how alike strangers are; {FEWEST} do. Leave --together out and name "
            "the patients."
        )
    pictures, small = [], []
    for path in tqdm(images, desc="Reducing pictures", unit="image", disable=None):
        picture = _picture(path)
        pictures.append(_scene(picture, SIDE))
        small.append(_scene(picture, SIDE // 2))
    usual, spread = _strangers(pictures)
    least = usual + spreads * spread
    if least > 1:
        raise PyrasegError(
            f"Half of the pairs of these pictures correlate by {usual:.2f} or more, so that frames of one scan would "
            f"have to by {least:.2f}: by their looks they cannot be told from strangers. Leave --together out and name "
            "the patients."
        )
    found = []
    for first, second in tqdm(_neighbors(small), desc="Comparing pictures", unit="pair", disable=None):
        correlation = tile_correlation(pictures[first], pictures[second])
        if correlation >= least:
            found.append(LookAlike(first, second, correlation))
    found.sort(key=lambda pair: (-pair.correlation, pair.first, pair.second))
    most = LARGEST * len(images)
    if (largest := _largest_group(found, len(images))) > most:
        last = bisect(range(len(found)), 0, key=lambda n: _largest_group(found[: n + 1], len(images)) > most)
        more = math.ceil(10 * (found[last].correlation - usual) / spread + 0.01) / 10
        raise PyrasegError(
            f"{largest} of {len(images)} pictures would be one group of look-alikes. Where they are of one patient, "
            "leave --together out and name the patients. Where they are strangers in a chain, as pictures with one "
            f"object in the middle are, give --together {more:g} or more, and look at the pairs that are listed then."
        )
    return LookAlikes(found, usual, least)


def _largest_group(pairs: Sequence[LookAlike], count: int) -> int:
    """Return how many of a number of pictures are in the largest group that the pairs make."""
    names = join([[place] for place in range(count)], [(pair.first, pair.second) for pair in pairs])
    return max(Counter(names).values())


def _strangers(pictures: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the median of the likeness of strangers and their spread below it, told by pairs drawn at random."""
    pairs = list(combinations(range(len(pictures)), 2)) if len(pictures) ** 2 < 2 * DRAWN else _drawn(len(pictures))
    drawn = tqdm(pairs, desc="Comparing strangers", unit="pair", disable=None)
    found = [tile_correlation(pictures[first], pictures[second]) for first, second in drawn]
    told = [correlation for correlation in found if correlation > 0]  # -1 and 0: other shapes, no structure
    if not told:
        raise PyrasegError("No two of the pictures can be compared: they have no structure. Leave --together out.")
    low, usual = np.percentile(told, [16, 50])
    return float(usual), float(usual - low)


def _drawn(count: int) -> list[tuple[int, int]]:
    """Return DRAWN pairs of different indices below a count; always the same ones."""
    random = np.random.default_rng(0)
    first = random.integers(count, size=DRAWN)
    second = (first + random.integers(1, count, size=DRAWN)) % count
    return list(zip(first.tolist(), second.tolist(), strict=True))


def _picture(path: str | Path) -> np.ndarray:
    """Return the gray values of a picture without its black border, (H, W) of any size."""
    values, _ = gray_values(as_file(path))
    if values.ndim == 3 and min(values.shape) >= THINNEST:
        raise PyrasegError(
            f"{path} is a volume of {' x '.join(map(str, values.shape))} voxels. Frames of one scan are looked for "
            "among pictures alone: leave --together out, copies of volumes are found without it."
        )
    return _without_border(values.mean(axis=2) if values.ndim == 3 else values)


def _scene(picture: np.ndarray, side: int) -> np.ndarray:
    """Return the lines, edges and spots of a picture, (H, W) of about side**2 pixels."""
    scale = side / np.sqrt(picture.size)
    height, width = (min(max(round(edge * scale), TILE), side**2 // TILE) for edge in picture.shape)
    return detail(resize(picture, (height, width)), 0.7, 3).astype(np.float32)


def _without_border(picture: np.ndarray) -> np.ndarray:
    """Return a picture, (H, W), without the rows and columns at its edges that are black."""
    bright = picture > picture.min() + _BLACK * np.ptp(picture)
    rows = np.flatnonzero(bright.mean(axis=1) > _SPECKS)
    if not rows.size:
        return picture
    bright = bright[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(bright.mean(axis=0) > _SPECKS)
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _neighbors(pictures: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Return the pairs of small pictures, by their indices, of which one is among those most similar to the other."""
    reach = REACH // 2
    edge = max((max(picture.shape) for picture in pictures), default=0) + reach
    padded = np.zeros((len(pictures), edge, edge), np.float32)
    for place, picture in zip(padded, pictures, strict=True):
        place[: picture.shape[0], : picture.shape[1]] = picture / max(float(np.linalg.norm(picture)), 1e-6)
    spectra = rfft2(padded)
    shifts = np.arange(-reach, reach + 1)
    best = np.full((len(pictures), len(pictures)), -np.inf, np.float32)
    for one, spectrum in enumerate(tqdm(spectra, desc="Choosing pairs", unit="image", disable=None)):
        everywhere = irfft2(spectrum * np.conj(spectra[one + 1 :]), s=(edge, edge))
        best[one, one + 1 :] = best[one + 1 :, one] = everywhere[:, shifts[:, None], shifts].max(axis=(1, 2))
    others = np.argsort(-best, axis=1)[:, : min(NEIGHBORS, len(pictures) - 1)]
    return sorted({(min(one, other), max(one, other)) for one, row in enumerate(others.tolist()) for other in row})


def tile_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean correlation of the tiles of two pictures with each other, at the best common shift.

    It is 1 for copies, 0 where one has no structure, and -1 where their shapes differ so much that one never covers the
    other.

    Args:
        one: (H, W) lines, edges and spots of a picture, as `detail` gives them.
        other: (H', W').
    """
    there, back = _at_shifts(one, other), _at_shifts(other, one)[::-1, ::-1]
    return float(np.where(np.minimum(there, back) > -1, (there + back) / 2, -1).max())


def _at_shifts(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how well the tiles of one picture are found in another one, at each shift of up to REACH pixels.

    Returns:
        (2 REACH + 1, 2 REACH + 1) mean correlations; -1 where too few tiles lie inside the other picture.
    """
    tiles, rows, columns = _windows(one, STEP)
    windows, height, width = _windows(other, 1)
    norms = np.sqrt(np.maximum(np.einsum("ij,ij->i", windows, windows), 1e-12))
    tiles = tiles / np.maximum(np.linalg.norm(tiles, axis=1, keepdims=True), 1e-6)
    far = REACH + PLAY
    size = 2 * far + 1
    around = np.full((rows * columns, height + 2 * far, width + 2 * far), -1, np.float32)
    around[:, far:-far, far:-far] = (tiles @ windows.T / norms).reshape(-1, height, width)
    near = np.full((rows * columns, size, size), -1, np.float32)
    for number, (row, column) in enumerate(np.ndindex(rows, columns)):
        part = around[number, STEP * row : STEP * row + size, STEP * column : STEP * column + size]
        near[number, : part.shape[0], : part.shape[1]] = part
    best = maximum_filter(near, size=(1, 2 * PLAY + 1, 2 * PLAY + 1))[:, PLAY:-PLAY, PLAY:-PLAY]
    count = (best > -1).sum(axis=0)
    mean = best.sum(axis=0, where=best > -1) / np.maximum(count, 1)
    return np.where(count >= OVERLAP * rows * columns, mean, -1)


def _windows(picture: np.ndarray, step: int) -> tuple[np.ndarray, int, int]:
    """Return the windows of a picture, (N, TILE**2), some pixels from each other, and how many rows and columns."""
    windows = sliding_window_view(picture, (TILE, TILE))[::step, ::step]
    return windows.reshape(-1, TILE**2), windows.shape[0], windows.shape[1]
