# SPDX-License-Identifier: Apache-2.0
"""Settings that follow from a fingerprint by simple rules, each with its reason."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bundle.pyraseg.data import ClassCounts, class_weights
from bundle.pyraseg_tools.fingerprint.measuring import CaseFingerprint
from bundle.pyraseg_tools.fingerprint.suspicion import pixel_size

STRIDE = 32  # pixels: a multiple of the deepest stride of every encoder
SHORTEST, LONGEST = 96, 512  # pixels along the shorter and the longer side of a slice
MOST_EMPTY = 0.2  # of the drawn slices
MOST_CUT = 1.0  # percent of an image that a window may cut off at either end


class Setting(NamedTuple):
    """A value for a key of the config, and why."""

    value: Any
    reason: str


def foreground_samples(case: CaseFingerprint) -> np.ndarray:
    """Return the intensities kept of all classes but the background."""
    classes = case.counts.shape[1]
    return np.concatenate([values for value, values in case.samples.items() if 0 < value < classes])


def propose_windows(cases: Sequence[CaseFingerprint]) -> Setting:
    """Return one window: in HU where every case has them, else between percentiles of each image."""
    labeled = [case for case in cases if case.foreground]
    if all(case.units == "HU" for case in labeled):
        values = np.concatenate([foreground_samples(case) for case in labeled])
        low, high = (round(float(value)) for value in np.percentile(values, (0.5, 99.5)))
        window = {"center": (low + high) / 2, "width": float(max(high - low, 1))}
        return Setting([window], f"from {low} to {high} HU: the 0.5th to 99.5th percentile under the labels")
    ranks = np.median([case.ranks for case in labeled if case.ranks is not None], axis=0)
    low = float(np.floor(10 * min(MOST_CUT, ranks[0])) / 10)
    high = float(np.ceil(10 * max(100 - MOST_CUT, ranks[1])) / 10)
    return Setting(
        [{"percentiles": [low, high]}],
        "intensities without a common unit; the labels of the median case lie between the percentiles "
        f"{ranks[0]:.3g} and {ranks[1]:.3g} of its image",
    )


def propose_grid(cases: Sequence[CaseFingerprint]) -> dict[str, Setting]:
    """Return `spacing` and `slice_size` for volumes, `slice_size` alone for images without patient geometry."""
    extents = np.median([case.size[:2] for case in cases], axis=0)
    spacings = [case.spacing for case in cases if case.spacing]
    spacing = float(np.median([pixel_size(case) for case in cases])) if len(spacings) == len(cases) else None
    if spacing is not None:
        sizes = [np.multiply(case.size[:2], found[:2]) for case, found in zip(cases, spacings, strict=True)]
        extents = np.median(sizes, axis=0) / spacing
    # The scale by which the median slice is enlarged: 1 unless it is smaller or larger than a network likes.
    scale = min(max(1.0, SHORTEST / extents.min()), LONGEST / extents.max())
    scale = scale if extents.max() > LONGEST or extents.min() < SHORTEST else 1.0
    size = [int(np.ceil(round(float(extent) * scale, 3) / STRIDE)) * STRIDE for extent in extents]
    why = "the median size" if scale == 1 else f"the median size times {scale:.3g}, between {SHORTEST} and {LONGEST}"
    grid = {"slice_size": Setting(size, f"{why}, rounded up to a multiple of {STRIDE} pixels")}
    if spacing is not None:
        target = float(f"{spacing / scale:.3g}")
        why = "the median in-plane spacing in mm" + ("" if scale == 1 else f", {spacing:.3g}, over {scale:.3g}")
        grid = {"spacing": Setting(target, why), **grid}
    return grid


def propose_weights(counts: ClassCounts, *, method: str, max_ratio: float | None) -> Setting:
    """Return the class weights of the loss."""
    weights = [float(f"{weight:.4g}") for weight in class_weights(counts, method=method, max_ratio=max_ratio)]
    shares = ", ".join(f"{p / counts.pixels.sum():.3%}" for p in counts.pixels)
    bound = "" if max_ratio is None else f", at most {max_ratio:g} : 1"
    return Setting(weights, f"{method.replace('_', ' ')} of the classes ({shares}){bound}")


def propose_background_fraction(cases: Sequence[CaseFingerprint]) -> Setting:
    """Return the share of the drawn slices that show no foreground."""
    share = sum(case.empty_slices for case in cases) / sum(len(case.counts) for case in cases)
    return Setting(round(min(share, MOST_EMPTY), 2), f"{share:.0%} of the slices show none; at most {MOST_EMPTY:g}")
