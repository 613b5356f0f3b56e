# SPDX-License-Identifier: Apache-2.0
"""2-D training samples from volumes and photographs, by random access."""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms import Compose
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from bundle.pyraseg.core import DiskError, PyrasegError, gather, in_turn, process_count, process_rank, require_mendable
from bundle.pyraseg.data.slice_cache import SliceCache
from bundle.pyraseg.labels import annotated_classes, annotated_names, refuse_others
from bundle.pyraseg.transforms import UNKNOWN, set_strength, split_at_random

logger = logging.getLogger(__name__)


class Draw(NamedTuple):
    """One sample, decided by the sampler: the same draw makes the same tensor in every process and in every run."""

    case: int
    slice: int
    seed: int
    strength: float


class SliceDataset(Dataset):
    """Slices of the cases of a data list, preprocessed once into a cache on disk and augmented at every draw.

    Args:
        data: items of the data list, {"image": path, "label": path, "patient": group}, and with "annotated" the names
            of the classes that somebody looked for.
        transform: deterministic preprocessing of a whole case; its result is cached.
        augmentation: random transforms of a slice, {"image": (C, W, H), "label": (1, W, H)}.
        augment_on_device: leave them, from the first random one on, to `training.AugmentBatch`.
        cache_dir: folder of the cache.
        num_workers: processes that fill the cache.
        class_names: background first; needed where an item has "annotated".

    Raises:
        PyrasegError: one or more cases cannot be read; all of them are named, and nothing stays written. Or a label
            holds a class that its case was not annotated for.

    >>> import tempfile
    >>> from monai.transforms import LoadImaged, RandFlipd
    >>> from PIL import Image
    >>> read = Compose([LoadImaged(["image", "label"], ensure_channel_first=True, dtype="uint8")])
    >>> flip = Compose([RandFlipd(["image", "label"], prob=0.5, spatial_axis=0)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     case = {"image": f"{folder}/image.png", "label": f"{folder}/label.png"}
    ...     for path in case.values():
    ...         Image.new("L", (6, 8)).save(path)
    ...     dataset = SliceDataset([case], read, augmentation=flip, cache_dir=f"{folder}/cache")
    ...     sample = dataset[Draw(case=0, slice=0, seed=7, strength=1.0)]
    >>> len(dataset), sample["image"].shape
    (1, torch.Size([1, 6, 8]))
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Callable[[dict], dict],
        *,
        augmentation: Compose,
        augment_on_device: bool = False,
        cache_dir: str | Path,
        num_workers: int = 0,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.data = list(data)
        self.annotated = _annotated(self.data, class_names)
        self.augmentation = augmentation
        self.before_device = split_at_random(augmentation)[0] if augment_on_device else None
        cache = SliceCache(cache_dir, transform)
        self.entries = [cache.entry(item) for item in self.data]
        with in_turn():
            self._fill(cache, num_workers)
        #: Which classes are in which slice of each case, (D, K) bool.
        self.present = [cache.present(entry) for entry in self.entries]
        if self.annotated is not None:  # here and not where the cache is filled, which knows the files alone
            for item, present in zip(self.data, self.present, strict=True):
                refuse_others(np.flatnonzero(present.any(axis=0)), item, class_names or [])
        #: The patient of each case.
        self.patients = [item.get("patient", item["image"]) for item in self.data]

    def __len__(self) -> int:
        """Return the number of slices of all cases."""
        return sum(len(present) for present in self.present)

    def __getitem__(self, index: Draw) -> dict[str, Any]:
        """Return one augmented slice: image (C, W, H) float32, label (1, W, H), and the path of its case's image.

        One whose augmentation is left to the device comes with the seed and the strength of its draw. Where any case of
        the data was annotated for some of the K classes only, every slice comes with those of its own, `annotated`:
        (K,) bool.
        """
        case: dict[str, Any] = {"case": str(self.data[index.case]["image"])}
        if self.annotated is not None:
            case["annotated"] = self.annotated[index.case]
        image, label = self.read(index)
        if self.before_device is not None:
            drawn = {"seed": index.seed, "strength": index.strength}
            return {**self.before_device({"image": image, "label": label}), **drawn, **case}
        self.augmentation.set_random_state(seed=index.seed)
        set_strength(self.augmentation, index.strength)
        return {**self.augmentation({"image": image, "label": label}), **case}

    def read(self, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what a draw is about, before its augmentation: image (C, W, H) float32 and label (1, W, H) uint8."""
        image, label = map(torch.from_numpy, SliceCache.read(self.entries[draw.case], draw.slice))
        return image, label

    def slices_of(self, case: int) -> np.ndarray:
        """Return all slices of a case before their augmentation, (D, C, W, H) float32, to be read in parts."""
        return SliceCache.arrays(self.entries[case])[0]

    def _fill(self, cache: SliceCache, num_workers: int) -> None:
        missing = _Missing(
            [item for item, entry in zip(self.data, self.entries, strict=True) if not entry.exists()], cache
        )
        if not missing.items:
            return
        was_there = cache.folder.exists()
        workers = DataLoader(missing, batch_size=None, num_workers=min(num_workers, len(missing.items)))
        progress = tqdm(workers, desc="Preparing slices", unit="case", disable=None, total=len(missing.items))
        failures = []
        for fault in progress:
            if isinstance(fault, DiskError):  # what is cached so far stays
                raise fault
            if fault is not None:
                failures.append(str(fault))
        if failures:
            for item in missing.items:
                shutil.rmtree(cache.entry(item), ignore_errors=True)
            if not was_there:
                shutil.rmtree(cache.folder, ignore_errors=True)
            raise PyrasegError(
                f"{len(failures)} of {len(self.data)} training cases cannot be used:\n  " + "\n  ".join(failures)
            )
        size = sum(file.stat().st_size for entry in self.entries for file in entry.iterdir())
        logger.info("Slices of %d cases are cached in %s (%.0f MB)", len(self.data), cache.folder, size / 1e6)


def _annotated(data: Sequence[dict[str, Any]], class_names: Sequence[str] | None) -> torch.Tensor | None:
    """Return which classes each case was annotated for, (N, K) bool, or None where all were for all."""
    if all(annotated_names(item) is None for item in data):
        return None
    if class_names is None:
        raise PyrasegError(
            "Some cases of the data list have 'annotated', and this dataset does not know the classes. Give it "
            "class_names."
        )
    found = torch.from_numpy(np.stack([annotated_classes(item, class_names) for item in data]))
    return None if found.all() else found


class _Missing(Dataset):
    """Write the entry of one case a time; return what is wrong with it, or nothing."""

    def __init__(self, items: list[dict[str, Any]], cache: SliceCache) -> None:
        self.items = items
        self.cache = cache

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> PyrasegError | None:
        return _fault(lambda: self.cache.write(self.items[index]))


def _fault(action: Callable[[], object]) -> PyrasegError | None:
    """Run an action; return what a user can mend where it fails, or None where it does not."""
    try:
        action()
    except Exception as error:  # MONAI's transforms wrap what they raise
        return require_mendable(error)
    return None


def check_cases(cases: Sequence[dict[str, Any]], transform: Callable[[dict], dict], *, part: str) -> None:
    """Run the preprocessing of every case once, so that what cannot be evaluated stops a run before it begins.

    Several processes share the work and all find what one of them finds.

    Args:
        cases: of one part of the split.
        transform: preprocessing.
        part: its name, for messages.

    Raises:
        PyrasegError: names every case that fails; or there is none at all, or no foreground in any label.
    """
    if not cases:
        raise PyrasegError(
            f"The {part} part of the data set's split has no case. Add cases under {part!r} in its datalist.json; "
            "without one, each of training, validation and test gets its share of the patients, of which there are too "
            "few: label more."
        )
    mine = cases[process_rank() :: process_count()]
    progress = tqdm(mine, desc="Checking cases", unit="case", disable=process_rank() > 0 or None)
    holding: list[bool] = []  # whether the label of a case holds any class

    def check(case: dict[str, Any]) -> None:
        label = transform(case)["label"]
        holding.append(bool(((label > 0) & (label != UNKNOWN)).any()))

    faults = [str(fault) for case in progress if (fault := _fault(lambda case=case: check(case)))]
    failures = [fault for found in gather(faults) for fault in found]
    if failures:
        raise PyrasegError(f"{len(failures)} of {len(cases)} cases cannot be used:\n  " + "\n  ".join(failures))
    if not any(map(any, gather(holding))):
        raise PyrasegError(
            f"No label in the {part} part of the split holds any class, so no Dice can be computed from it. Put cases "
            "with classes into it."
        )
