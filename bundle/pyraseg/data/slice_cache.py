# SPDX-License-Identifier: Apache-2.0
"""Preprocessed volumes on disk, slice by slice."""

import hashlib
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.utils import pickle_hashing
from monai.transforms import Randomizable

from bundle.pyraseg.core import ITK, PyrasegError, pixel_files, replacing
from bundle.pyraseg.labels import CASE_OPTIONS
from bundle.pyraseg.transforms import UNKNOWN, label_files


class SliceCache:
    """Keep what a deterministic transform makes of a case as arrays whose slices are read one at a time.

    An entry is a folder named after a hash of the transform, of the code that it runs and of the case's files (paths,
    sizes, times of change), so that a change to any of them makes a new one. It is written aside and renamed: a run
    that dies leaves none half-written. An entry holds `image.npy` (D, C, W, H) float32, `label.npy` (D, 1, W, H) uint8
    and `present.npy` (D, K) bool, which tells the classes in each slice. A photograph is a volume of one slice.

    Args:
        folder: where entries are kept.
        transform: makes {"image": (C, W, H[, D]), "label": (1, W, H[, D])} from an item of the data list.
    """

    def __init__(self, folder: str | Path, transform: Callable[[dict], dict[str, Any]]) -> None:
        self.folder = Path(folder)
        self.transform = transform
        self._transform_key = _key_of(transform)

    def entry(self, item: dict[str, Any]) -> Path:
        """Return the folder of an item's entry, whether or not it exists."""
        key = hashlib.sha256(self._transform_key)
        key.update(state_of_files(item).encode())
        return self.folder / key.hexdigest()[:24]

    def write(self, item: dict[str, Any]) -> Path:
        """Preprocess an item and write its entry.

        Raises:
            PyrasegError: the item cannot be read, or its image and label differ in size.
        """
        made = self.transform({key: item[key] for key in ("image", "label", *CASE_OPTIONS) if key in item})
        image, label = np.asarray(made["image"], np.float32), np.asarray(made["label"])
        if image.shape[1:] != label.shape[1:]:
            raise PyrasegError(
                f"The image {item['image']} has {image.shape[1:]} pixels after preprocessing, its label "
                f"{item['label']} has {label.shape[1:]}. Give every image a label of its own size."
            )
        image, label = (array[..., None] if array.ndim == 3 else array for array in (image, label))
        image, label = (np.ascontiguousarray(np.moveaxis(array, -1, 0)) for array in (image, label.astype(np.uint8)))
        classes = label[label != UNKNOWN]
        present = np.zeros((len(label), int(classes.max(initial=0)) + 1), bool)
        for row, values in zip(present, label, strict=True):
            row[np.unique(values[values != UNKNOWN])] = True
        entry = self.entry(item)
        try:
            with replacing(entry) as folder:
                folder.mkdir()
                for name, array in (("image", image), ("label", label), ("present", present)):
                    np.save(folder / f"{name}.npy", array)
        except OSError:
            if not entry.is_dir():  # else another run wrote the same entry in the meantime
                raise
        return entry

    @staticmethod
    def arrays(entry: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return the image (D, C, W, H) and the label (D, 1, W, H) of an entry, to be read in parts."""
        image, label = (np.load(entry / f"{name}.npy", mmap_mode="r") for name in ("image", "label"))
        return image, label

    @staticmethod
    def read(entry: Path, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return slice `index` of an entry: image (C, W, H) and label (1, W, H). Nothing else is read from disk."""
        image, label = (array[index] for array in SliceCache.arrays(entry))
        return np.array(image), np.array(label)

    @staticmethod
    def present(entry: Path) -> np.ndarray:
        """Return which classes are in which slice, (D, K) bool."""
        return np.load(entry / "present.npy")


def state_of_files(item: dict[str, Any]) -> str:
    """Return a hash of the paths, sizes and times of change of a case's files: it tells when one of them changes.

    What the data list says of how they are read counts as well.
    """
    key = hashlib.sha256(str(item["label"]).encode())  # which file is which class
    key.update("".join(f"{name}={item[name]}\n" for name in CASE_OPTIONS if item.get(name)).encode())
    for root in (item["image"], *label_files(item["label"])):
        for path in _files_of(Path(root)):
            status = path.stat()
            key.update(f"{path}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return key.hexdigest()[:24]


def _files_of(path: Path) -> list[Path]:
    """Return the files of an image or label: those of a folder, or a file and those that its header names."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    named = pixel_files(path) if path.name.lower().endswith(ITK) and path.is_file() else []
    return [path, *(file for file in named if file.is_file())]


def _key_of(transform: Any) -> bytes:
    """Return a hash of a deterministic transform and its parameters, the same in every process."""
    if isinstance(transform, Randomizable):  # MONAI gives every Compose a random state, drawn anew in every process
        transform = deepcopy(transform)
        transform.set_random_state(seed=0)
    return pickle_hashing(transform) + _code()


@cache
def _code() -> bytes:
    """Return the source of every room that a transform of this package may run: a change to one outdates the cache."""
    package = Path(__file__).resolve().parents[1]
    sources = sorted(
        path for room in ("core", "dicom", "labels", "runtime", "transforms") for path in (package / room).glob("*.py")
    )
    return b"".join(path.read_bytes() for path in sources)
