# SPDX-License-Identifier: Apache-2.0
"""Tell by the values of a volume whether they are Hounsfield units, where no header says so."""

from typing import NamedTuple

import numpy as np

#: HU around air and around soft tissue with fat, and below which no scanner measures: what is lower is padding.
AIR, SOFT, LOWEST = (-1050.0, -950.0), (-150.0, 250.0), -1100.0
#: HU that hardly a voxel exceeds, but of metal.
HIGHEST = 4096.0
#: What some programs add, so that no value is negative.
OFFSET = 1024.0
#: Shares of the voxels: air and soft tissue at least, values between padding and air and values of metal at most.
_PADDED = 0.001  # share from which on the smallest value is padding
_AIR_SHARE, _SOFT_SHARE, _STRAY = 0.01, 0.05, 0.02
_FEWEST_SLICES = 2


class Units(NamedTuple):
    """The units of an image, "HU" or "", its modality, "" if unknown, and by what they are known, in words."""

    units: str
    modality: str
    evidence: str


def recognize(values: np.ndarray) -> Units:
    """Return the units of an image (W, H[, D]) of which nothing but the values is known.

    Hounsfield units need all of: several slices; air at about -1000; soft tissue around 0; hardly a value below air
    but one of padding (-1024, -2000, -3024 ...); hardly one above 4096. A volume without air around or in the body, or
    clipped to a narrow window, is not told from MR with negative values, and is left without a unit.
    """
    if values.ndim != 3 or values.shape[2] < _FEWEST_SLICES:
        return Units("", "", "one slice or picture: values tell no unit")
    values = values[np.isfinite(values)]
    lowest = values.min() if values.size else 0.0
    padded = lowest < LOWEST and (values == lowest).mean() > _PADDED  # in the corners of the field of view
    if padded:
        values = values[values > lowest]
    if not values.size:
        return Units("", "", "values tell no unit")

    def share(low: float, high: float) -> float:
        return float(((values >= low) & (values <= high)).mean())

    def like_ct(added: float) -> bool:
        return (
            share(AIR[0] + added, AIR[1] + added) >= _AIR_SHARE
            and share(SOFT[0] + added, SOFT[1] + added) >= _SOFT_SHARE
            and share(-np.inf, LOWEST + added) <= _STRAY
            and share(HIGHEST + added, np.inf) <= _STRAY
        )

    if like_ct(0.0):
        air = values[(values >= AIR[0]) & (values <= AIR[1])]
        padding = f", padding {lowest:g}" if padded else ""
        return Units("HU", "CT", f"values: {len(air) / values.size:.0%} air at {np.median(air):.0f}{padding}")
    # Air at 24 and soft tissue at 1024 may be chance in MR, whose values are not so sharply apart.
    body = values[values > 0.3 * OFFSET]
    whole = np.array_equal(values, np.rint(values))
    inside = (body > OFFSET + SOFT[0]) & (body < OFFSET + SOFT[1])
    if whole and values.min() >= 0 and like_ct(OFFSET) and inside.mean() >= 0.5:
        return Units("", "", f"values: like HU with {OFFSET:g} added, which are no HU")
    return Units("", "", "values tell no unit")


def units_of(values: np.ndarray, *, modality: str, units: str, stated: str | None) -> Units:
    """Return the units of an image: those of its DICOM header, else those that a user states, else by its values.

    Args:
        values: (W, H[, D]).
        modality: of a DICOM header, else "".
        units: the same.
        stated: the modality that a user names for images without a header; None if none is named.
    """
    if modality or units:
        return Units(units, modality, "DICOM header")
    found = recognize(values)
    if stated is None:
        return found
    if stated == "CT":
        doubt = f", but {found.evidence}" if "added" in found.evidence else ""
        return Units("HU", "CT", f"--modality{doubt}")
    return Units("", stated, "--modality")
