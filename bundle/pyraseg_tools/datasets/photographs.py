# SPDX-License-Identifier: Apache-2.0
"""Draw photographs of made-up skin with a lesion and its mask, to try a training of photographs on."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from bundle.pyraseg.core import PyrasegError, replacing, require_new

SIZE = 256, 192  # columns, rows
#: The lightest and the darkest skin, RGB.
SKIN = np.array([[232, 196, 178], [141, 92, 68]], float)


def write_photograph_study(
    folder: str | os.PathLike, *, seed: int = 2024, people: int = 30, photographs: int = 2
) -> list[str]:
    """Write photographs and masks of made-up people and return the names of the cases.

    The folder appears whole or not at all. It holds `images/person_NN_a.jpg`, of 256 x 192 pixels, and
    `masks/person_NN_a_segmentation.png`, 0 and 255: the names of the ISIC challenges. All photographs of a person
    show the same lesion, turned, nearer or further away and in another light. Spots and hairs around it are no lesion.

    Args:
        folder: must not exist, or be empty.
        seed: the same seed gives the same pixels.
        people: at least 3.
        photographs: of each person, at least 1 and at most 26.

    Raises:
        PyrasegError: the folder holds something already, or there are too few people or photographs.
    """
    folder = Path(folder)
    if people < 3 or not 1 <= photographs <= 26:
        raise PyrasegError("A study needs at least 3 people, to split them in three, and 1 to 26 photographs of each.")
    require_new(folder)
    names = []
    with replacing(folder) as partial:
        for part in ("images", "masks"):
            (partial / part).mkdir(parents=True)
        for person in range(people):
            for photograph in range(photographs):
                names.append(f"person_{person + 1:02d}_{chr(ord('a') + photograph)}")
                image, mask = draw_photograph(seed, person, photograph)
                Image.fromarray(image).save(partial / "images" / f"{names[-1]}.jpg", quality=90)
                Image.fromarray(mask).save(partial / "masks" / f"{names[-1]}_segmentation.png")
    return names


def draw_photograph(seed: int, person: int, photograph: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a photograph, (rows, columns, 3) uint8, and the mask of its lesion, (rows, columns) of 0 and 255."""
    own = np.random.default_rng([seed, person])  # what stays the same from one photograph of a person to the next
    skin = SKIN[0] + own.uniform(0, 1) * (SKIN[1] - SKIN[0])
    color = skin * own.uniform(0.35, 0.6) + own.normal(0, 6, 3)
    waves = [(k, own.normal(0, 0.35 / k), own.uniform(0, 2 * np.pi)) for k in range(2, 7)]
    size, flatness, softness = own.uniform(0.24, 0.4), own.uniform(0.65, 1), own.uniform(0.03, 0.12)

    random = np.random.default_rng([seed, person, photograph])
    columns, rows = SIZE
    y, x = np.indices((rows, columns))
    center = np.array([columns, rows]) * random.uniform(0.4, 0.6, 2)
    radius, turn = rows * size * random.uniform(0.8, 1.2), random.uniform(0, 2 * np.pi)
    across = (x - center[0]) * np.cos(turn) + (y - center[1]) * np.sin(turn)
    down = (y - center[1]) * np.cos(turn) - (x - center[0]) * np.sin(turn)
    angle = np.arctan2(down / flatness, across)
    border = 1 + sum(height * np.cos(k * angle + phase) for k, height, phase in waves)
    distance = np.hypot(across, down / flatness) / (radius * np.clip(border, 0.45, 1.8))

    share = 1 / (1 + np.exp((distance - 1) / softness)) * (1 - 0.25 * _clouds(random, 24))
    picture = skin + share[..., None] * (color - skin)
    picture += (12 * _clouds(random, 40) + 5 * _clouds(random, 4) - 8)[..., None]
    picture *= random.uniform(0.8, 1.1) * (1 + 0.25 * random.normal() * (x / columns - 0.5))[..., None]
    drawn = Image.fromarray(np.clip(picture + random.normal(0, 3, picture.shape), 0, 255).astype(np.uint8))
    _spots_and_hairs(drawn, random, tuple((0.55 * skin).astype(int)))
    return np.asarray(drawn.filter(ImageFilter.GaussianBlur(0.7))), np.where(distance < 1, 255, 0).astype(np.uint8)


def _clouds(random: np.random.Generator, grain: int) -> np.ndarray:
    """Return smooth noise from 0 to 1 with patches of about `grain` pixels, (rows, columns)."""
    columns, rows = SIZE
    coarse = random.uniform(0, 255, (rows // grain + 2, columns // grain + 2)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)) / 255


def _spots_and_hairs(image: Image.Image, random: np.random.Generator, color: tuple[int, int, int]) -> None:
    draw = ImageDraw.Draw(image)
    for _ in range(random.integers(0, 6)):
        (x, y), radius = random.uniform(0, SIZE), random.uniform(2, 6)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    for _ in range(random.integers(0, 9)):
        start, end, bend = random.uniform(0, SIZE), random.uniform(0, SIZE), random.normal(0, 30, 2)
        steps = np.linspace(0, 1, 24)[:, None]
        curve = start + steps * (end - start) + 4 * steps * (1 - steps) * bend
        draw.line([tuple(point) for point in curve], fill=(45, 32, 26), width=int(random.integers(1, 3)))
