# SPDX-License-Identifier: Apache-2.0
"""What uncertainty is worth: the risk that is left when the most uncertain cases go to a person."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def risk_coverage(uncertainties: ArrayLike, risks: ArrayLike) -> dict[str, Any]:
    """Return how the mean risk falls when only the least uncertain cases are left to the network.

    Args:
        uncertainties: one a case, (N,).
        risks: what each case's segmentation lacks, such as 1 - Dice, (N,).

    Returns:
        `curve`: for k = 1 .. N the `coverage` k / N and the mean `risk` of the k least uncertain cases (Geifman &
        El-Yaniv, NIPS 2017); `area`: the mean of these risks (AURC); `area_random`: what it is for an uncertainty that
        tells nothing, on average; `area_best`: what it is when uncertainties are in the order of the risks.
    """
    risks = np.asarray(risks, float)
    left = np.arange(1, len(risks) + 1)
    curve = np.cumsum(risks[np.argsort(np.asarray(uncertainties, float), kind="stable")]) / left
    return {
        "area": float(curve.mean()),
        "area_random": float(risks.mean()),
        "area_best": float((np.cumsum(np.sort(risks)) / left).mean()),
        "curve": [
            {"coverage": float(k / len(risks)), "risk": float(risk)} for k, risk in zip(left, curve, strict=True)
        ],
    }
