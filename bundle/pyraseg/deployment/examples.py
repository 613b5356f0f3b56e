# SPDX-License-Identifier: Apache-2.0
"""Images that nobody took, of many sizes, on which an exported graph is compared with PyTorch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor

from bundle.pyraseg.deployment.recipe import Recipe
from bundle.pyraseg.dicom import VoiWindow
from bundle.pyraseg.transforms import Percentiles

#: Sides (height, width) of images: odd, even, not square, and so small that the coarsest maps have fewer than 7 x 7.
SIZES = ((33, 33), (64, 64), (97, 130), (160, 96), (255, 65), (33, 321))
#: Sides (W, H, D) of volumes.
VOLUME_SIZES = ((33, 33, 17), (64, 32, 32), (49, 66, 21), (21, 35, 80))
#: Slices of a test volume; the first and the last have neighbors on one side alone.
SLICES = 3


@dataclass(frozen=True, eq=False)
class Example:
    """Hold one image in two forms.

    Attributes:
        item: as `LoadImaged` returns it, oriented as displayed.
        feed: inputs of a whole-path graph.
    """

    item: dict[str, MetaTensor]
    feed: dict[str, np.ndarray]


def examples(recipe: Recipe, sizes: Sequence[tuple[int, int]] = SIZES) -> Iterator[Example]:
    """Yield an image for each size; the same ones in every run. Every second radiograph or volume is inverted."""
    random = np.random.default_rng(0)
    for number, (height, width) in enumerate(sizes):
        if recipe.image_kind == "photograph":
            yield _photograph(patterns(random, 3, height, width))
        else:
            depth = SLICES if recipe.image_kind == "volume" else 1
            gray = _rescaled(recipe, patterns(random, depth, height, width))
            yield _gray(recipe, gray, number, inverted=number % 2 == 1)


def patterns(random: np.random.Generator, count: int, *size: int) -> np.ndarray:
    """Return images or volumes (count, *size) from 0 to 1 with coarse shapes and noise; neighbors are alike."""
    coarse, fine = (
        torch.from_numpy(random.random((1, count, *sides)).astype(np.float32))
        for sides in ((6, 7, 5)[: len(size)], size)
    )
    means = coarse.cumsum(1) / torch.arange(1, count + 1).view(1, -1, *[1] * len(size))
    shapes = F.interpolate(means, size, mode="bicubic" if len(size) == 2 else "trilinear")
    return (0.85 * shapes + 0.15 * fine)[0].clamp(0, 1).numpy()


def _photograph(colors: np.ndarray) -> Example:
    image = np.rint(255 * colors).astype(np.uint8)
    item = MetaTensor(torch.from_numpy(image.transpose(0, 2, 1).astype(np.float32)))
    return Example({"image": item}, {"image": np.ascontiguousarray(image.transpose(1, 2, 0))[None]})


def _rescaled(recipe: Recipe, gray: np.ndarray) -> np.ndarray:
    """Stretch values beyond all windows on both sides."""
    fixed = [window for window in recipe.windows if isinstance(window, VoiWindow)] or [VoiWindow(500, 1000)]
    low, high = (min(w.center - 0.6 * w.width for w in fixed), max(w.center + 0.6 * w.width for w in fixed))
    return (low + (high - low) * gray).astype(np.float32)


def _gray(recipe: Recipe, slices: np.ndarray, number: int, *, inverted: bool) -> Example:
    """Return slices (depth, height, width) as a volume or, one of them, as a projection."""
    depth = len(slices)
    free = [window for window in recipe.windows if not isinstance(window, VoiWindow)]
    offered = [
        tuple(VoiWindow(480.0 + 40 * item + 7 * k, 300.0 + 90 * item, "LINEAR_EXACT") for item in range(8))
        for k in range(depth)
    ]
    meta: dict[str, Any] = {"inverted": inverted, "voi": offered}
    array = slices.transpose(2, 1, 0)[None]
    # Between 0.4 and 1.3 of the network's own spacing, and not the same along the two axes.
    own = recipe.spacing or 1.0
    between_rows, between_columns = (own * (0.4 + 0.9 * ((number * step) % 7) / 6) for step in (2, 3))
    if recipe.image_kind == "projection":
        item = MetaTensor(torch.from_numpy(array[..., 0].copy()), meta=meta)
    else:
        affine = np.diag([-between_columns, -between_rows, 3.0, 1.0])
        item = MetaTensor(torch.from_numpy(array.copy()), affine=torch.from_numpy(affine), meta=meta)
    around = [range(k - recipe.context_slices, k + recipe.context_slices + 1) for k in range(depth)]
    places = np.clip(np.array([list(indices) for indices in around]), 0, depth - 1)
    feed = {"image": slices[places], "inverted": np.full(depth, inverted)}
    if recipe.image_kind == "volume":
        feed["spacing"] = np.array([between_rows, between_columns])
    if free:
        chosen = [
            [window.window(slices) if isinstance(window, Percentiles) else offered[k][window] for window in free]
            for k in range(depth)
        ]
        edges = [[(w.center - w.width / 2, w.center + w.width / 2) for w in windows] for windows in chosen]
        feed["windows"] = np.array(edges, np.float32)[places]
    return Example({"image": item}, feed)
