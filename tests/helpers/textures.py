# SPDX-License-Identifier: Apache-2.0
"""Made-up images with structure of several sizes."""

import numpy as np
from scipy.ndimage import gaussian_filter


def texture(seed: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Return a picture with structure of several sizes, 0 to 255."""
    random = np.random.default_rng(seed)
    picture = sum(scale * gaussian_filter(random.normal(size=size), scale) for scale in (1, 2, 4, 8, 16))
    return np.uint8(255 * (picture - picture.min()) / np.ptp(picture))


def volume(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return sum(s * gaussian_filter(random.normal(size=(40, 48, 24)), s) for s in (1, 2, 4)).astype(np.float32)
