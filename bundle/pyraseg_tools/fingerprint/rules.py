# SPDX-License-Identifier: Apache-2.0
"""What follows from a fingerprint by simple rules: cases to look at, and settings with their reasons."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bundle.pyraseg.data import ClassCounts, class_weights
from bundle.pyraseg_tools.fingerprint.measuring import CaseFingerprint

OUTSIDE = 0.01  # share of the labeled pixels that may lie outside the body
SPACING_RATIO = 3.0  # between a case's pixel size and the median one
FEWEST = 10  # cases without which nobody can say what is usual
FAR = 100  # deviations that are no longer counted
DEVIATIONS = 6.0  # robust standard deviations from the median: hardly ever by chance


def suspicious(cases: Sequence[CaseFingerprint]) -> dict[str, list[str]]:
    """Return what is odd about cases, in words, by their names; cases without a label are not odd, they are empty.

    A case is compared with its own image (constant, labels outside the body) and with the others: size and place of the
    labels, brightness under them relative to the image, pixel size, modality. A deviation counts where it is more than
    `DEVIATIONS` times the median absolute deviation, scaled to a standard deviation.
    """
    found: dict[str, list[str]] = {}

    def add(case: CaseFingerprint, reason: str) -> None:
        found.setdefault(case.name, []).append(reason)

    usable = [case for case in cases if not case.fault]
    for case in cases:
        if case.fault:
            add(case, case.fault)
        if case.is_constant:
            add(case, f"the image has the value {case.extent[0]:g} everywhere")
        elif case.outside > OUTSIDE:
            add(case, f"{case.outside:.0%} of the labeled pixels lie outside the body")
    for name, value in {"modality": lambda c: c.modality, "number of channels": lambda c: c.channels}.items():
        usual = Counter(map(value, usable)).most_common(1)
        for case in usable:
            if value(case) != usual[0][0]:
                add(case, f"the {name} is {value(case) or 'not stated'}, mostly {usual[0][0] or 'not stated'}")
    located = [case for case in usable if case.spacing]
    median = float(np.median([pixel_size(case) for case in located])) if located else 1.0
    for case in located:
        if not 1 / SPACING_RATIO < pixel_size(case) / median < SPACING_RATIO:
            add(case, f"pixels of {pixel_size(case):.3g} mm, mostly {median:.3g} mm")
    labeled = [case for case in usable if case.foreground and not case.is_constant]
    for alike in _annotated_alike(labeled):
        for name, value in _measures(alike).items():
            for case, deviation in zip(alike, _deviations([value(case) for case in alike]), strict=True):
                if abs(deviation) > DEVIATIONS:
                    far = f"{abs(deviation):.0f}" if abs(deviation) < FAR else f"more than {FAR}"
                    add(case, f"{name} is {value(case):.3g}, {far} deviations from the usual")
    return found


def _annotated_alike(cases: Sequence[CaseFingerprint]) -> list[list[CaseFingerprint]]:
    """Return the cases in groups annotated for the same classes: the labels of others differ by that alone."""
    groups: dict[frozenset[str], list[CaseFingerprint]] = {}
    for case in cases:
        groups.setdefault(frozenset(case.item.get("annotated") or ()), []).append(case)
    return list(groups.values())


def pixel_size(case: CaseFingerprint) -> float:
    """Return the geometric mean of a case's in-plane spacing in mm."""
    assert case.spacing is not None  # asked of images with patient geometry alone
    return float(np.sqrt(case.spacing[0] * case.spacing[1]))


def _measures(cases: Sequence[CaseFingerprint]) -> dict[str, Callable[[CaseFingerprint], float]]:
    measures: dict[str, Callable[[CaseFingerprint], float]] = {
        "the labeled share of the image": lambda case: case.counts[:, 1:].sum() / case.counts.sum(),
        "the relative brightness under the label": _brightness,
    }
    if len({len(case.size) for case in cases}) == 1:
        for axis, name in zip(range(len(cases[0].size)), ("x", "y", "z"), strict=False):
            measures[f"the relative {name} of the label's center"] = lambda case, axis=axis: case.center[axis]
    return measures


def _brightness(case: CaseFingerprint) -> float:
    assert case.foreground is not None  # asked of labeled images alone
    smallest, low, high, largest = case.extent
    if high == low:  # all but a few pixels have one value
        low, high = smallest, largest
    return (case.foreground[1] - low) / (high - low)


def _deviations(values: Sequence[float]) -> np.ndarray:
    """Return by how many robust standard deviations each value is from the median; zeros for too few values."""
    found = np.asarray(values, dtype=float)
    away = found - np.median(found) if len(found) >= FEWEST else np.zeros(len(found))
    spread = 1.4826 * np.median(np.abs(away))
    rounding = 1e-6 * np.abs(found).max(initial=0.0)  # of values that are all the same
    return away / spread if spread > rounding else np.zeros(len(values))


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


def _partly(known: Sequence[CaseFingerprint], labeled: Sequence[CaseFingerprint]) -> str:
    if known:
        return f" ({len(known)} of {len(labeled)} are in HU; if all are CT in HU, give --modality CT)"
    added = [case for case in labeled if "added" in case.evidence]
    return f" ({len(added)} of {len(labeled)} look like HU with 1024 added: subtract it for HU)" if added else ""


def propose_windows(cases: Sequence[CaseFingerprint]) -> Setting:
    """Return one window: in HU where every case has them, else between percentiles of each image."""
    labeled = [case for case in cases if case.foreground]
    known = [case for case in labeled if case.units == "HU"]
    if len(known) == len(labeled):
        values = np.concatenate([foreground_samples(case) for case in labeled])
        low, high = (round(float(value)) for value in np.percentile(values, (0.5, 99.5)))
        window = {"center": (low + high) / 2, "width": float(max(high - low, 1))}
        by = ", ".join(sorted({case.evidence.partition(":")[0] for case in known if case.evidence}))
        by = f" (HU by {by})" if by else ""
        return Setting([window], f"from {low} to {high} HU{by}: the 0.5th to 99.5th percentile under the labels")
    ranks = np.median([case.ranks for case in labeled if case.ranks is not None], axis=0)
    low = float(np.floor(10 * min(MOST_CUT, ranks[0])) / 10)
    high = float(np.ceil(10 * max(100 - MOST_CUT, ranks[1])) / 10)
    return Setting(
        [{"percentiles": [low, high]}],
        f"intensities without a common unit{_partly(known, labeled)}; the labels of the median case lie between the "
        f"percentiles {ranks[0]:.3g} and {ranks[1]:.3g} of its image",
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
    shares = ", ".join(f"{share:.3%}" for share in counts.shares)
    bound = "" if max_ratio is None else f", at most {max_ratio:g} : 1"
    return Setting(weights, f"{method.replace('_', ' ')} of the classes ({shares}){bound}")


def propose_background_fraction(cases: Sequence[CaseFingerprint]) -> Setting:
    """Return the share of the drawn slices that show no foreground."""
    share = sum(case.empty_slices for case in cases) / sum(len(case.counts) for case in cases)
    return Setting(round(min(share, MOST_EMPTY), 2), f"{share:.0%} of the slices show none; at most {MOST_EMPTY:g}")
