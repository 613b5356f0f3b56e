# SPDX-License-Identifier: Apache-2.0
"""What a scanner and a contrast agent do to the numbers: phases, texture, blur, noise and streaks, in HU."""

from types import SimpleNamespace

import numpy as np
from scipy.ndimage import gaussian_filter

# Mean HU per contrast phase and the spread between patients. The ranges of the organs overlap on purpose.
PHASES = ("native", "arterial", "portal")
TISSUES = {
    "liver": ((56, 74, 106), 8),
    "spleen": ((49, 112, 115), 9),
    "cortex": ((34, 150, 165), 12),
    "medulla": ((30, 72, 150), 8),
    "aorta": ((42, 270, 150), 15),
    "vena_cava": ((40, 75, 135), 8),
    "portal_vein": ((41, 105, 160), 8),
    "hepatic_vein": ((41, 66, 145), 6),
    "muscle": ((54, 58, 64), 5),
    "pancreas": ((42, 92, 88), 7),
    "wall": ((40, 78, 84), 8),
    "blood": ((42, 190, 150), 10),
    "bile": ((8, 8, 8), 5),
    "effusion": ((16, 17, 18), 12),
    "fat": ((-105, -105, -103), 6),
}


def draw_tissues(rng: np.random.Generator, phase: str) -> SimpleNamespace:
    """Draw the HU of every tissue of one patient, and the contrast of the liver lesions."""
    column = PHASES.index(phase)
    hu = {name: means[column] + rng.uniform(-spread, spread) for name, (means, spread) in TISSUES.items()}
    if rng.random() < 0.3:  # a fatty liver is darker than the spleen
        hu["liver"] -= rng.uniform(12, 26)
    sign = 1 if rng.random() < 0.1 else -1
    return SimpleNamespace(**hu, lesion_contrast=sign * rng.uniform(28, 44))


def add_scanner(hu: np.ndarray, rng: np.random.Generator, *, streak: bool) -> np.ndarray:
    """Blur, roughen and, now and then, streak a volume (N, rows, columns) in HU; return it as int16."""
    blur = rng.uniform(0.3, 0.5)
    hu = gaussian_filter(hu, (0, blur, blur), truncate=3)
    noise = gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), (0, 0.6, 0.6), truncate=3)
    hu += noise * np.float32(rng.uniform(7, 10.5) / noise.std())
    if streak:
        _add_streaks(hu, rng)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def _add_streaks(hu: np.ndarray, rng: np.random.Generator) -> None:
    slices, rows, columns = hu.shape
    first = int(rng.integers(slices // 4, slices // 2))
    y0, x0 = rows * rng.uniform(0.35, 0.6), columns * rng.uniform(0.45, 0.65)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    angle, radius = np.arctan2(y - y0, x - x0), np.hypot(y - y0, x - x0)
    for k in range(first, first + int(rng.integers(2, 4))):
        rays = sum(np.cos(n * angle + rng.uniform(0, 6.28)) for n in (5, 9, 14, 23))
        hu[k] += np.float32(14) * rays * np.exp(-radius / (0.3 * columns)) * (radius > 2)
        hu[k][radius < 1.8] = 2500  # the clip that casts them
