# SPDX-License-Identifier: Apache-2.0
"""Fit the guard of a model: where the images of its training lie, and how far from them its own kind may be."""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy.stats import t
from torch import Tensor

from bundle.pyraseg.core import process_rank
from bundle.pyraseg.inference import GUARD
from bundle.pyraseg.runtime import LEFT_ALONE, Guard, group_sizes, image_statistics, planes_of
from bundle.pyraseg.training.checkpoints import read_model, save_atomically

logger = logging.getLogger(__name__)

#: Cases of the training that are looked at, and planes of all of them; cases of the validation.
MOST_CASES, MOST_PLANES, MOST_VALIDATED = 1024, 2048, 256
#: Planes of the training, and cases of the validation, below which nothing can be said.
FEWEST_PLANES, FEWEST_VALIDATED = 8, 2
#: Share of the variance that the axes have, of how many planes there is one, how many there are at most, and numbers of
#: them all, which the weights carry.
EXPLAINED, PLANES_PER_AXIS, MOST_AXES, MOST_NUMBERS = 0.95, 4, 40, 56_000
#: Least variance of what is the same in all images, as a share of that of its kind.
LEAST = 1e-6


class Slices(Protocol):
    """Cases whose slices can be read, as `data.SliceDataset` has them."""

    @property
    def entries(self) -> Sequence[object]: ...

    def slices_of(self, case: int) -> np.ndarray: ...


class Cases(Protocol):
    """Preprocessed cases with an `image` (C, W, H[, D]), as `monai.data.Dataset` gives them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


def add_guard(weights: str | Path, *, training: Slices, validation: Cases, seed: int) -> None:
    """Fit a guard to the images of a training, and put it into the file of the weights.

    Some cases are drawn where there are many, and of volumes up to 16 planes. Where there are too few images, a line
    says that the weights get none. Of several processes the first one does it.

    Args:
        weights: file that `save_model` wrote; where a run has none, `promote` says so.
        training: dataset of the training part.
        validation: dataset of the validation part.
        seed: of the draw.

    Raises:
        PyrasegError: the weights cannot be read.
    """
    weights = Path(weights)
    if process_rank() > 0 or not weights.is_file():
        return
    content, _ = read_model(weights)
    random = np.random.default_rng(seed)
    planes = list(_planes(training, random))
    drawn = sorted(random.permutation(len(validation))[:MOST_VALIDATED].tolist())
    if len(planes) < FEWEST_PLANES or len(drawn) < FEWEST_VALIDATED:
        logger.warning(
            "The model gets no guard: %d images of the training and %d cases of the validation are too few, it takes "
            "%d and %d. It will not say which images are unlike these.",
            len(planes), len(drawn), FEWEST_PLANES, FEWEST_VALIDATED,
        )  # fmt: skip
        return
    channels = training.slices_of(0).shape[1]
    judged = [_of_image(validation[index]["image"]) for index in drawn]
    guard = fit_guard(np.stack(planes), judged, channels=channels)
    found = OrderedDict(content)
    vars(found)["_metadata"] = OrderedDict({**getattr(content, "_metadata", {}), GUARD: guard.text})
    save_atomically(found, weights)
    logger.info(
        "%s has a guard now, of %d axes, from %d planes of the training and %d cases of the validation",
        weights, len(guard.axes), len(planes), len(judged),
    )  # fmt: skip


def fit_guard(planes: np.ndarray, judged: Sequence[Sequence[np.ndarray]], *, channels: int) -> Guard:
    """Return a guard for images like those of a training.

    Statistics of each kind have the same weight in all, whatever their number and unit. The axes are the principal ones
    that explain `EXPLAINED` of the variance. For the threshold, see `upper_bound`.

    Args:
        planes: statistics of planes of the training, (N, F), see `image_statistics`.
        judged: for each case of the validation, the statistics of its planes; at least two cases.
        channels: of the images.
    """
    center = planes.mean(axis=0, dtype=np.float64)
    deviations = planes - center
    ends = np.cumsum([0, *group_sizes(channels)])
    total = [(deviations[:, low:high] ** 2).sum(axis=1).mean() for low, high in pairwise(ends)]
    scale = np.repeat(1 / np.sqrt(np.maximum(total, LEAST)), np.diff(ends))
    _, singular, axes = np.linalg.svd(deviations * scale, full_matrices=False)
    variances = np.maximum(singular**2 / len(planes), LEAST)
    share = np.cumsum(variances) / variances.sum()
    count = min(int(np.searchsorted(share, EXPLAINED)) + 1, MOST_AXES, MOST_NUMBERS // len(center))
    count = min(count, len(planes) // PLANES_PER_AXIS)
    residual = max(float(variances[count:].sum()), LEAST)
    fitted = (center, scale, axes[:count].astype(np.float16), variances[:count])  # as the weights will have them
    guard = Guard(*(array.astype(np.float32) for array in fitted), residual=residual, threshold=1.0)
    threshold = upper_bound([guard.unlike(case) for case in judged])
    return Guard(*(array.astype(np.float32) for array in fitted), residual=residual, threshold=threshold)


def upper_bound(distances: Sequence[float]) -> float:
    """Return the distance that one more image of the same kind stays below with a probability of `LEFT_ALONE` %.

    From 49 images on it is one of theirs, whatever their distribution: the k-th smallest, k = 0.98 (n + 1) rounded up
    (conformal prediction). Of fewer it is the upper bound of a prediction interval (Student's t, of the logarithms).

    Args:
        distances: of at least two images.

    >>> upper_bound(range(1, 100))
    98.0
    """
    share, count = LEFT_ALONE / 100, len(distances)
    rank = int(np.ceil(share * (count + 1)))
    if rank <= count:
        return float(np.sort(distances)[rank - 1])
    logs = np.log(np.maximum(distances, LEAST))
    width = t.ppf(share, count - 1) * logs.std(ddof=1) * np.sqrt(1 + 1 / count)
    return float(np.exp(logs.mean() + width))


def _planes(training: Slices, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the statistics of planes of the training, some of each case that is drawn."""
    cases = sorted(random.permutation(len(training.entries))[:MOST_CASES].tolist())
    of_each = max(1, MOST_PLANES // max(1, len(cases)))
    for case in cases:
        slices = training.slices_of(case)
        chosen = planes_of(len(slices))
        if len(chosen) > of_each:
            chosen = sorted(random.permutation(chosen)[:of_each].tolist())
        for number in chosen:
            yield image_statistics(np.asarray(slices[number], np.float32))


def _of_image(image: Tensor) -> list[np.ndarray]:
    """Return the statistics of the planes of an image (C, W, H[, D]) that a guard looks at."""
    volume = np.asarray(image, np.float32)
    volume = volume if volume.ndim == 4 else volume[..., None]
    return [image_statistics(np.ascontiguousarray(volume[..., number])) for number in planes_of(volume.shape[3])]
