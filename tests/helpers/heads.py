# SPDX-License-Identifier: Apache-2.0
"""Made-up heads of different people in one frame, as a set of standardized CT volumes has them."""

import numpy as np
from scipy.ndimage import gaussian_filter


def _field(random: np.random.Generator, size: int, scale: float) -> np.ndarray:
    field = gaussian_filter(random.normal(size=(size,) * 3), scale)
    return field / field.std()


def head(person: int, size: int = 40) -> np.ndarray:
    """Return HU of the head of a person, (size, size, size) float32.

    All heads have the same frame, the same skull and much of the same brain; the size of the skull, the ventricles, the
    sinuses, the outline and the texture of the brain are each person's own, and so is the noise.
    """
    common, random = np.random.default_rng(0), np.random.default_rng(1000 + person)
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij"))
    axes = np.array([0.72, 0.88, 0.80]) * (1 + 0.02 * random.normal(size=3))
    radius = np.sqrt(((places / axes[:, None, None, None]) ** 2).sum(axis=0)) + 0.015 * _field(random, size, size / 8)
    brain = 35 + 8 * _field(common, size, size / 12) + 8 * _field(random, size, size / 20)
    values = np.select([radius < 0.88, radius < 0.96, radius < 1], [brain, 900.0, 60.0], -1000.0)

    def ball(center: tuple[float, ...], own: float, axes: np.ndarray | float) -> np.ndarray:
        offsets = places - (np.array(center) + own * random.normal(size=3)).reshape(3, 1, 1, 1)
        return ((offsets / np.reshape(axes, (-1, 1, 1, 1))) ** 2).sum(axis=0) < 1

    for side in (-1, 1):
        values[ball((0.15 * side, 0.05, 0.05), 0.02, [0.08, 0.3, 0.12] * (1 + 0.15 * random.normal(size=3)))] = 5
    for x in (-0.25, 0.0, 0.25):
        for z in (-0.3, -0.1):
            values[ball((x, 0.7, z), 0.03, 0.08 * (1 + 0.2 * random.normal()))] = -900
    return np.rint(values + random.normal(0, 6, values.shape)).astype(np.float32)
