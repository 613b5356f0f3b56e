# SPDX-License-Identifier: Apache-2.0
"""3-D training samples from volumes, by random access."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.data.slice_cache import SliceCache
from bundle.pyraseg.data.slices import Draw, SliceDataset
from bundle.pyraseg.transforms import UNKNOWN


class PatchDataset(SliceDataset):
    """Patches of the volumes of a data list, over the cache of `SliceDataset` and with its draws.

    The slice of a draw is the depth of the patch's middle: the sampler chooses it as it does for 2-D samples, by
    patient and by class. In the plane, the patch lies about a voxel of a class that the slice shows, or anywhere where
    it shows none. A patch that would reach beyond the volume is moved into it; a volume that is smaller than a patch
    lies in the middle, and its outermost voxels, image and label, are repeated around it.

    Args:
        data, transform, augment_on_device, cache_dir, num_workers, class_names: see `SliceDataset`.
        augmentation: random transforms of a region, {"image": (C, W, H, D), "label": (1, W, H, D)}, of which they leave
            the patch in its middle.
        patch_size: voxels along W, H and D that the augmentation leaves.
        margin: share of the patch by which the region that is read is larger, so that a rotated patch has corners.

    >>> import tempfile
    >>> import nibabel as nib
    >>> from monai.transforms import CenterSpatialCropd, LoadImaged
    >>> read = Compose([LoadImaged(["image", "label"], ensure_channel_first=True)])
    >>> crop = Compose([CenterSpatialCropd(["image", "label"], roi_size=[8, 8, 4])])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     case = {"image": f"{folder}/image.nii.gz", "label": f"{folder}/label.nii.gz"}
    ...     for path in case.values():
    ...         nib.Nifti1Image(np.zeros((20, 20, 3), np.uint8), np.eye(4)).to_filename(path)
    ...     options = {"patch_size": [8, 8, 4], "margin": 0.5, "cache_dir": f"{folder}/cache"}
    ...     dataset = PatchDataset([case], read, augmentation=crop, **options)
    ...     sample = dataset[Draw(case=0, slice=1, seed=7, strength=1.0)]
    >>> sample["image"].shape
    torch.Size([1, 8, 8, 4])
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Callable[[dict], dict],
        *,
        augmentation: Compose,
        patch_size: Sequence[int],
        margin: float = 0.0,
        augment_on_device: bool = False,
        cache_dir: str | Path,
        num_workers: int = 0,
        class_names: Sequence[str] | None = None,
    ) -> None:
        if len(patch_size) != 3 or min(patch_size) < 1 or margin < 0:
            raise PyrasegError(
                f"patch_size takes three numbers of voxels, along W, H and D, not {list(patch_size)}, and the margin "
                f"around a patch is 0 or more, not {margin}."
            )
        super().__init__(
            data,
            transform,
            augmentation=augmentation,
            augment_on_device=augment_on_device,
            cache_dir=cache_dir,
            num_workers=num_workers,
            class_names=class_names,
        )
        self.patch_size = tuple(patch_size)
        self.region_size = tuple(round(side * (1 + margin)) for side in patch_size)

    def read(self, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the region of a draw: image (C, W, H, D) float32 and label (1, W, H, D) uint8."""
        image, label = SliceCache.arrays(self.entries[draw.case])
        middle = (*_middle_in_plane(label[draw.slice, 0], np.random.default_rng(draw.seed)), draw.slice)
        sides = (*image.shape[2:], image.shape[0])
        places = [_around(*axis) for axis in zip(middle, sides, self.patch_size, self.region_size, strict=True)]
        columns, rows, slices = (slice(first, last) for first, last, _ in places)
        margins = ((0, 0), *(margin for _, _, margin in places))
        found = (np.moveaxis(array[slices, :, columns, rows], 0, -1) for array in (image, label))
        padded = (np.pad(array, margins, mode="edge") for array in found)
        of_image, of_label = (torch.from_numpy(np.ascontiguousarray(array)) for array in padded)
        return of_image, of_label


def _middle_in_plane(label: np.ndarray, random: np.random.Generator) -> tuple[int, int]:
    """Return a pixel of a class of a slice (W, H), each class being as likely as the others, or any pixel."""
    label = np.asarray(label)
    classes = np.unique(label[(label > 0) & (label != UNKNOWN)])
    if len(classes) == 0:
        column, row = random.integers(label.shape)
    else:
        pixels = np.argwhere(label == classes[random.integers(len(classes))])
        column, row = pixels[random.integers(len(pixels))]
    return int(column), int(row)


def _around(middle: int, side: int, patch: int, region: int) -> tuple[int, int, tuple[int, int]]:
    """Return where a region begins and ends along an axis of a volume, and by how much it reaches beyond it.

    >>> _around(0, 20, 8, 12)  # the patch is moved to 0..7, its region would be -2..9
    (0, 10, (2, 0))
    """
    start = (side - patch) // 2 if side < patch else min(max(middle - patch // 2, 0), side - patch)
    first = start - (region - patch) // 2
    last = first + region
    return max(first, 0), min(last, side), (max(-first, 0), max(last - side, 0))
