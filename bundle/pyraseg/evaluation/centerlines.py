# SPDX-License-Identifier: Apache-2.0
"""Agreement of thin structures along their centerlines, where an overlap is mostly that of their borders."""

import numpy as np
from skimage.morphology import skeletonize


def centerline_dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Return the clDice of two masks (Shit et al., "clDice - a Novel Topology-Preserving Loss Function", CVPR 2021).

    It is the harmonic mean of the share of the prediction's centerline that lies in the truth and the share of the
    truth's centerline that lies in the prediction. A branch counts by its length, however wide it is.

    Args:
        prediction: boolean mask, (W, H[, D]).
        truth: the same.

    Returns:
        From 0 to 1: 0 where one mask is empty, NaN where both are.

    >>> line, half = np.zeros((2, 9, 9), bool)
    >>> line[4, :8] = half[4, :4] = True
    >>> round(centerline_dice(half, line), 3)  # all of its centerline is right, and half of the truth's is found
    0.667
    """
    if not prediction.any() and not truth.any():
        return float("nan")
    if not prediction.any() or not truth.any():
        return 0.0
    precision, sensitivity = (
        float(inside.squeeze()[skeletonize(mask.squeeze())].mean())
        for mask, inside in ((prediction, truth), (truth, prediction))
    )
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0
