# SPDX-License-Identifier: Apache-2.0
"""Augment on the device that trains, batch by batch, instead of in the processes that load."""

from typing import Any

import torch
from monai.engines import default_prepare_batch
from monai.transforms import Compose

from bundle.pyraseg.transforms import set_strength, split_at_random


class AugmentBatch:
    """Move a batch to a device and, where its slices were only drawn, augment them there: a trainer's `prepare_batch`.

    A dataset that leaves augmentation to the device (see `SliceDataset`) adds to every slice the seed and the strength
    of its draw. So a slice is augmented the same wherever that happens, but for the noise, whose numbers CUDA draws
    otherwise, and for rounding.

    Args:
        augmentation: the dataset's; what it does before its first random transform was done when the slice was loaded.

    Returns:
        Image (B, C, W, H) and label (B, 1, W, H) on the device.
    """

    def __init__(self, augmentation: Compose) -> None:
        _, self.augmentation = split_at_random(augmentation)

    def __call__(
        self, batch: dict[str, torch.Tensor], device: Any = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = default_prepare_batch(batch, device, non_blocking, **kwargs)
        if "seed" not in batch:
            return image, label
        slices = []
        draws = zip(image, label, batch["seed"].tolist(), batch["strength"].tolist(), strict=True)
        for of_image, of_label, seed, strength in draws:
            self.augmentation.set_random_state(seed=seed)
            set_strength(self.augmentation, strength)
            slices.append(self.augmentation({"image": of_image, "label": of_label}))
        return torch.stack([each["image"] for each in slices]), torch.stack([each["label"] for each in slices])
