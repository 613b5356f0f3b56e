# SPDX-License-Identifier: Apache-2.0
"""Pictures of many kinds, as a person would give them to a model: those of the tasks, and others."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from monai.bundle import ConfigParser
from monai.transforms import Compose, LoadImaged
from PIL import Image

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.runtime import find_inputs
from bundle.pyraseg.transforms import MedicalImageReader

#: Pictures of a set, at most; spread over it.
MOST = 100
#: Pictures of scikit-image that need no download.
SKIMAGE = (
    "astronaut", "brick", "camera", "cell", "checkerboard", "chelsea", "clock", "coffee", "coins", "colorwheel",
    "grass", "gravel", "horse", "hubble_deep_field", "immunohistochemistry", "logo", "microaneurysms", "moon", "page",
    "retina", "rocket", "shepp_logan_phantom", "text",
)  # fmt: skip


def as_picture(image: np.ndarray) -> np.ndarray:
    """Return what a screen shows of an image (C, W, H[, D]), (rows, columns[, 3]) uint8: of a volume the middle slice.

    Gray values from the 1st to the 99th percentile become black to white; colors of 8 bits stay.
    """
    plane = image[..., image.shape[3] // 2] if image.ndim == 4 else image
    if len(plane) == 3 and plane.dtype == np.uint8:
        return np.ascontiguousarray(plane.transpose(2, 1, 0))
    gray = plane[0].T.astype(np.float32)
    low, high = np.percentile(gray, [1, 99])
    return (np.clip((gray - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)


def of_task(config: ConfigParser) -> Iterator[np.ndarray]:
    """Yield pictures of the cases of a task, of all parts."""
    cases = [case for part in ("training", "validation", "test") for case in config.get_parsed_content("cases")[part]]
    (load,) = (
        step for step in config.get_parsed_content("train#preprocessing").transforms if isinstance(step, LoadImaged)
    )
    for case in _spread(cases):
        yield as_picture(np.asarray(Compose([load])({"image": case["image"]})["image"]))


def of_skimage() -> Iterator[np.ndarray]:
    """Yield the pictures of scikit-image."""
    for name in SKIMAGE:
        picture = getattr(skimage.data, name)()
        if picture.dtype != np.uint8:
            picture = (255 * picture.astype(np.float32)).astype(np.uint8)
        yield picture[..., :3] if picture.ndim == 3 else picture


def of_dicom(folder: Path) -> Iterator[np.ndarray]:
    """Yield a picture of each series below a folder that can be read; the middle slice of a volume."""
    gray, color = (LoadImaged("image", reader=MedicalImageReader(rgb=rgb), ensure_channel_first=True, dtype=None)
                   for rgb in (False, True))  # fmt: skip
    for item in find_inputs(folder):
        for load in (color, gray):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    image = np.asarray(load({"image": item["image"]})["image"])
            except Exception:  # broken on purpose, or not of this kind; MONAI wraps what is raised
                continue
            yield as_picture(image)
            break


def slices_of(folder: Path) -> Iterator[np.ndarray]:
    """Yield each slice of the DICOM series below a folder as a picture."""
    load = LoadImaged("image", reader=MedicalImageReader(), ensure_channel_first=True)
    for item in find_inputs(folder):
        image = np.asarray(load({"image": item["image"]})["image"])
        for number in range(image.shape[3]):
            yield as_picture(image[..., number])


def _spread(cases: list[Any]) -> list[Any]:
    return cases if len(cases) <= MOST else [cases[number * len(cases) // MOST] for number in range(MOST)]


def in_gray(picture: np.ndarray) -> np.ndarray:
    """Return a picture in gray, (rows, columns) uint8."""
    return picture if picture.ndim == 2 else np.asarray(Image.fromarray(picture).convert("L"))


def in_color(picture: np.ndarray) -> np.ndarray:
    """Return a picture in color, (rows, columns, 3) uint8."""
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def folder_of(data: Path, *names: str) -> Path:
    """Return the folder below one of data that has one of some names.

    Raises:
        PyrasegError: there is none.
    """
    found = next((data / name for name in names if (data / name).is_dir()), None)
    if found is None:
        raise PyrasegError(f"{data} has no folder {' or '.join(names)}. Put the data set there, or a link to it.")
    return found
