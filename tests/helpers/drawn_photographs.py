# SPDX-License-Identifier: Apache-2.0
"""Photographs of a made-up lesion with their masks."""

from pathlib import Path

import numpy as np
from PIL import Image


def draw(path: Path, seed: int, size: tuple[int, int]) -> None:
    """Write a photograph of a dark ellipse and its mask, `images/` and `masks/` beside each other."""
    random = np.random.default_rng(seed)
    columns, rows = size
    y, x = np.indices((rows, columns))
    center, radius = random.uniform(0.4, 0.6, 2), random.uniform(0.15, 0.3, 2)
    inside = ((x / columns - center[0]) / radius[0]) ** 2 + ((y / rows - center[1]) / radius[1]) ** 2 < 1
    picture = np.where(inside[..., None], [96, 62, 50], [210, 166, 150]) + random.normal(0, 5, (rows, columns, 1))
    for folder, image in (("images", picture.clip(0, 255)), ("masks", inside * 255)):
        (path / folder).mkdir(parents=True, exist_ok=True)
        name = f"c{seed}.jpg" if folder == "images" else f"c{seed}_segmentation.png"
        Image.fromarray(image.astype(np.uint8)).save(path / folder / name)
