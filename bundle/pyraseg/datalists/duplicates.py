# SPDX-License-Identifier: Apache-2.0
"""Find images that are the same, or nearly: saved again, scaled, shifted by a few pixels, with other brightness.

Two pictures are compared by what is left of a small gray copy of each when slow changes of brightness and differences
of contrast are taken out: lines, edges and spots. Their correlation, at the best of small shifts, is 1 for copies. What
it is for copies and for others on real sets, and so the threshold, is in docs/data.md. Volumes: `volume_copies.py`.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import irfft2, rfft2
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from bundle.pyraseg.core import PHOTOGRAPH, PyrasegError, fill_outside, open_photograph
from bundle.pyraseg.datalists.volume_copies import Reduced, alike_volumes, copies_among, reduce_volume
from bundle.pyraseg.dicom import ChosenPath, FoundFile, as_file
from bundle.pyraseg.transforms import MedicalImageReader

#: Correlation from which on two images count as the same.
THRESHOLD = 0.8
#: Pixels along an edge of the picture that decides, and by how many of them two images may be shifted.
SIZE, REACH = 128, 6
#: Pixels along an edge of the picture that chooses whom to compare, and the correlation from which on it does.
COARSE_SIZE, COARSE_THRESHOLD = 32, 0.8
#: Voxels along the shortest edge of a volume; a thinner one is compared as a picture, the mean of its slices.
THINNEST = 8
_BLOCK = 256


@dataclass(frozen=True)
class Duplicate:
    """Two images, by their indices, that are the same: `exact` if in every pixel, else with their correlation."""

    first: int
    second: int
    score: float
    exact: bool

    def __str__(self) -> str:
        return "the same pixels" if self.exact else f"nearly the same (correlation {self.score:.2f})"


def find_duplicates(images: Sequence[str | Path], *, threshold: float = THRESHOLD) -> list[Duplicate]:
    """Return the pairs of images that are the same or nearly so, the most alike first.

    Photographs are compared as gray pictures, volumes as `volume_copies.py` does; the gray scale itself does not count.
    Images without any structure are compared pixel by pixel alone. Rotated copies are not found, and of photographs
    those that are mirrored or cut out of a larger image are not either.

    Args:
        images: paths of what the reader reads: photographs, volumes, folders of DICOM series.
        threshold: correlation from which on two images count as nearly the same.

    Raises:
        PyrasegError: an image cannot be read, or the threshold is no correlation.
    """
    if not 0 < threshold <= 1:
        raise PyrasegError(f"The threshold is a correlation between 0 and 1, not {threshold}.")
    pictures: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    volumes: dict[int, Reduced] = {}
    same: dict[bytes, list[int]] = defaultdict(list)
    for index, path in enumerate(tqdm(images, desc="Comparing images", unit="image", disable=None)):
        values, affine = gray_values(as_file(path))
        if values.ndim == 3 and min(values.shape) >= THINNEST:
            volumes[index] = reduce_volume(values, affine)
            same[volumes[index].levels.tobytes()].append(index)
        else:
            picture = resize(values.mean(axis=2) if values.ndim == 3 else values, (SIZE, SIZE))
            coarse = structure(resize(picture, (COARSE_SIZE, COARSE_SIZE)), 0.7, 3)
            pictures[index] = coarse, structure(picture, 1, 4).astype(np.float16)
            same[picture.tobytes()].append(index)
    exact = {pair for group in same.values() for pair in _identical(images, group)}
    alike = _alike_pictures(list(pictures.values()), threshold)
    similar = alike_volumes(list(volumes.values()), threshold)
    copies = {pair: likeness.correlation for pair, likeness in copies_among(similar).items()}
    scores = {
        (places[first], places[second]): score
        for places, pairs in ((list(pictures), alike), (list(volumes), copies))
        for (first, second), score in pairs.items()
    }
    found = {pair: Duplicate(*pair, score, False) for pair, score in scores.items()}
    found |= {pair: Duplicate(*pair, 1.0, True) for pair in exact}
    return sorted(found.values(), key=lambda pair: (-pair.score, pair.first, pair.second))


def _alike_pictures(
    pictures: Sequence[tuple[np.ndarray, np.ndarray]], threshold: float
) -> dict[tuple[int, int], float]:
    """Return the pairs of pictures, by their indices, whose coarse and whose fine structure are alike."""
    found = {}
    if pictures:
        coarse, fine = (np.stack(structures) for structures in zip(*pictures, strict=True))
        for first, second in _candidates(coarse.reshape(len(coarse), -1).astype(np.float32)):
            scores = _correlation(fine[first].astype(np.float32), fine[second].astype(np.float32))
            for pair in np.flatnonzero(scores >= threshold):
                found[int(first[pair]), int(second[pair])] = float(scores[pair])
    return found


def structure(picture: np.ndarray, fine: float, coarse: float) -> np.ndarray:
    """Return the lines, edges and spots of a picture as an array of mean 0 and norm 1; zeros where there are none.

    Args:
        picture: (H, W), H = W.
        fine, coarse: as for `detail`.
    """
    # The rim weighs less: a round field of view, a black border or a ruler there makes strangers look alike.
    rim = np.sqrt(np.hanning(len(picture) + 2)[1:-1])
    found = detail(picture, fine, coarse) * np.outer(rim, rim)
    found -= found.mean()
    norm = np.linalg.norm(found)
    return found / norm if picture.std() > 1e-6 * (abs(picture).max() + 1e-12) else np.zeros_like(found)


def detail(picture: np.ndarray, fine: float, coarse: float) -> np.ndarray:
    """Return the lines, edges and spots of a picture, (H, W), those of dark and of bright regions of equal contrast.

    Args:
        picture: (H, W).
        fine: standard deviation in pixels of the blur that takes out noise.
        coarse: of the blur that stands for what is slower than structure.
    """
    found = gaussian_filter(picture, fine, mode="nearest") - gaussian_filter(picture, coarse, mode="nearest")
    contrast = np.sqrt(gaussian_filter(found**2, 1.5 * coarse, mode="nearest")) + 0.02 * picture.std()
    return found / np.maximum(contrast, 1e-12)


def gray_values(path: Path | ChosenPath | FoundFile) -> tuple[np.ndarray, np.ndarray]:
    """Return the gray values of an image, (W, H) or (W, H, D), of any size, and where they lie, (4, 4)."""
    if str(path).lower().endswith(PHOTOGRAPH):
        image = open_photograph(Path(path), draft=(2 * SIZE, 2 * SIZE))
        picture = np.array(image if image.mode[0] in "IF" else image.convert("L"), np.float32)
        fill_outside(picture.T, str(path), axes=2)
        return picture, np.eye(4)
    array, meta = MedicalImageReader().get_data([path])
    values = np.asarray(array, np.float32)
    if values.ndim > 3:  # colors, or several measurements of one volume
        values = values.mean(axis=tuple(range(3, values.ndim)))
    return values, np.asarray(meta["affine"])


def resize(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a picture, (H, W), of another shape; Pillow averages where it shrinks."""
    image = Image.fromarray(np.ascontiguousarray(picture, np.float32))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BILINEAR))


def _identical(images: Sequence[str | Path], group: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of a group of look-alikes that are the same in every pixel."""
    if len(group) < 2:
        return
    reader = MedicalImageReader()
    alike: list[tuple[np.ndarray, int]] = []  # one of each kind
    for index in group:
        pixels = np.asarray(reader.get_data([as_file(images[index])])[0])
        first = next((i for known, i in alike if np.array_equal(known, pixels, equal_nan=True)), None)
        if first is None:
            alike.append((pixels, index))
        else:
            yield first, index


def _candidates(coarse: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the indices of pairs that are worth a closer look, some at a time."""
    for start in range(0, len(coarse), _BLOCK):
        alike = coarse[start : start + _BLOCK] @ coarse[start:].T
        first, second = np.nonzero(np.triu(alike, 1) >= COARSE_THRESHOLD)
        for chunk in range(0, len(first), _BLOCK):
            yield start + first[chunk : chunk + _BLOCK], start + second[chunk : chunk + _BLOCK]


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the largest correlation of N pairs of pictures (N, SIZE, SIZE) over shifts of up to REACH pixels."""
    everywhere = irfft2(rfft2(first) * np.conj(rfft2(second)), s=first.shape[-2:])
    shifts = np.arange(-REACH, REACH + 1)
    return everywhere[:, shifts[:, None], shifts].max(axis=(1, 2))
