# SPDX-License-Identifier: Apache-2.0
"""How many voxels have which label value."""

import numpy as np


def count_values(labels: np.ndarray) -> np.ndarray:
    """Return how many of some labels have which value, (256,), a block at a time: numpy makes 8 bytes of each."""
    counts = np.zeros(256, int)
    for start in range(0, labels.size, 1 << 22):
        block = labels[start : start + (1 << 22)]
        found = block[block > 0]  # a few
        counts += np.bincount(found, minlength=256)
        counts[0] += block.size - found.size
    return counts
