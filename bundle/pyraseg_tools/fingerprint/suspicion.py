# SPDX-License-Identifier: Apache-2.0
"""Which cases of a data set a person should look at before a network learns from them."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from bundle.pyraseg_tools.fingerprint.measuring import CaseFingerprint

OUTSIDE = 0.01  # share of the labeled pixels that may lie outside the body
SPACING_RATIO = 3.0  # between a case's pixel size and the median one
FEWEST = 10  # cases without which nobody can say what is usual
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
    for name, value in _measures(labeled).items():
        for case, deviation in zip(labeled, _deviations([value(case) for case in labeled]), strict=True):
            if abs(deviation) > DEVIATIONS:
                add(case, f"{name} is {value(case):.3g}, {abs(deviation):.0f} deviations from the usual")
    return found


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
    _, low, high, _ = case.extent
    return (case.foreground[1] - low) / max(high - low, np.finfo(float).tiny)


def _deviations(values: Sequence[float]) -> np.ndarray:
    """Return by how many robust standard deviations each value is from the median; zeros for too few values."""
    found = np.asarray(values, dtype=float)
    away = found - np.median(found) if len(found) >= FEWEST else np.zeros(len(found))
    spread = 1.4826 * np.median(np.abs(away))
    return away / spread if spread > 0 else np.zeros(len(values))
