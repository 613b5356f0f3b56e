# SPDX-License-Identifier: Apache-2.0
"""The layout of Pascal VOC's segmentation data (Everingham et al., IJCV 88:303, 2010): where what lies, and how."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bundle.pyraseg.core import PyrasegError

IMAGES = "JPEGImages"
MASKS = "SegmentationClass"
LISTS = "ImageSets/Segmentation"
#: VOC's names of the parts of a split, by ours.
PARTS = {"training": "train", "validation": "val", "test": "test"}
SUFFIXES = (".jpg", ".jpeg", ".png")
JPEG_QUALITY = 95


def palette() -> np.ndarray:
    """Return VOC's colors, (256, 3) uint8: each bit of an index, lowest first, goes to red, green and blue in turn.

    The three lowest bits are the highest of the three colors. 255, the void, is (224, 224, 192).
    """
    index = np.arange(256)
    colors = np.zeros((256, 3), int)
    for level in range(8):
        for channel in range(3):
            colors[:, channel] |= (index >> (3 * level + channel) & 1) << (7 - level)
    return colors.astype(np.uint8)


def write_mask(path: Path, classes: np.ndarray) -> None:
    """Write class indices (rows, columns) uint8 as a PNG with VOC's palette."""
    image = Image.fromarray(np.ascontiguousarray(classes))
    image.putpalette(palette().tobytes())
    image.save(path)


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write (rows, columns) uint8 or uint16, or RGB (rows, columns, 3) uint8; the suffix names the format.

    JPEGs keep the colors of every pixel (no chroma subsampling), since the channels may be different windows.
    """
    options: dict[str, Any] = {"quality": JPEG_QUALITY, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, **options)


def write_lists(root: Path, names: Mapping[str, Iterable[str]]) -> None:
    """Write the names of the images of each part, and VOC's `trainval.txt`, which is both of the first two."""
    folder = root / LISTS
    folder.mkdir(parents=True)
    parts = {VOC: sorted(names[part]) for part, VOC in PARTS.items()}
    parts["trainval"] = sorted(parts["train"] + parts["val"])
    for part, members in parts.items():
        (folder / f"{part}.txt").write_text("".join(f"{name}\n" for name in members), encoding="utf-8")


def is_voc(folder: Path) -> bool:
    """Return whether a folder holds a split in VOC's form."""
    return (folder / LISTS / "train.txt").is_file()


def read_lists(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Return {"image": path, "label": path, "patient": name} of each part of the split, in the order of the lists.

    A list that is absent (VOC 2012 has none of its test part) is an empty part.

    Raises:
        PyrasegError: a name is no file name, is listed twice, or has no image or no mask.
    """
    cases: dict[str, list[dict[str, Any]]] = {}
    seen: set[str] = set()
    for part, name in PARTS.items():
        listed = root / LISTS / f"{name}.txt"
        names = listed.read_text(encoding="utf-8").split("\n") if listed.is_file() else []
        cases[part] = [_case(root, listed, name.strip(), seen) for name in names if name.strip()]
    return cases


def _case(root: Path, listed: Path, name: str, seen: set[str]) -> dict[str, Any]:
    if name in seen or Path(name).name != name:
        what = "is listed twice" if name in seen else "is no name of a file"
        raise PyrasegError(f"{listed}: {name!r} {what}. Correct the lists of the split.")
    seen.add(name)
    image = next((path for suffix in SUFFIXES if (path := root / IMAGES / f"{name}{suffix}").is_file()), None)
    mask = root / MASKS / f"{name}.png"
    if image is None or not mask.is_file():
        absent = f"{IMAGES}/{name}{SUFFIXES[0]}" if image is None else f"{MASKS}/{name}.png"
        raise PyrasegError(f"{listed} names {name}, but {root} holds no {absent}. Correct the list or add the file.")
    return {"image": str(image), "label": str(mask), "patient": name}
