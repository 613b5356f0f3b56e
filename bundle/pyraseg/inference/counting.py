# SPDX-License-Identifier: Apache-2.0
"""How many voxels have which label value."""

import math

import numpy as np

DIGITS = 9  # of a volume that count


def count_values(labels: np.ndarray) -> np.ndarray:
    """Return how many of some labels have which value, (256,), a block at a time: numpy makes 8 bytes of each."""
    counts = np.zeros(256, int)
    for start in range(0, labels.size, 1 << 22):
        block = labels[start : start + (1 << 22)]
        found = block[block > 0]  # a few
        counts += np.bincount(found, minlength=256)
        counts[0] += block.size - found.size
    return counts


def milliliters(volume: float) -> str:
    """Return a volume in mm³ as ml for a table: nine digits that count, and four decimals or more.

    So the table agrees with what is counted in a DICOM SEG to one in a million, however small the volume.

    >>> milliliters(0), milliliters(1_234_500), milliliters(12.3456789012)
    ('0.0000', '1234.5000', '0.0123456789')
    """
    number = float(volume) / 1000
    before = math.floor(math.log10(number)) + 1 if number > 0 else DIGITS
    whole, _, decimals = f"{number:.{max(DIGITS - before, 4)}f}".partition(".")
    return f"{whole}.{decimals.rstrip('0'):0<4}"
