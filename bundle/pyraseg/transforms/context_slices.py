# SPDX-License-Identifier: Apache-2.0
"""Neighboring slices as channels (2.5-D)."""

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from bundle.pyraseg.core import PyrasegError


class StackContextSlicesd(MapTransform):
    """Give every slice the channels of its neighbors: (C, W, H, D) -> (C * (2 * context_slices + 1), W, H, D).

    Channels run from the slice `context_slices` below to the one as far above, each with its own C channels; beyond the
    first and the last slice, that slice is repeated. With 0 nothing changes.

    >>> volume = torch.tensor([0.0, 1.0, 2.0]).reshape(1, 1, 1, 3)  # three slices of one pixel
    >>> StackContextSlicesd("image", context_slices=1)({"image": volume})["image"][:, 0, 0, 0].tolist()
    [0.0, 0.0, 1.0]
    """

    def __init__(self, keys: KeysCollection, *, context_slices: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if context_slices < 0:
            raise PyrasegError(f"The number of neighboring slices must be 0 or more, got {context_slices}.")
        self.context_slices = context_slices

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        return {**data, **{key: self.stack(data[key]) for key in self.key_iterator(data)}}

    def stack(self, image: torch.Tensor) -> torch.Tensor:
        """Return the stacked volume; metadata are kept."""
        if self.context_slices == 0 or image.ndim == 3:
            return image
        slices = torch.arange(image.shape[-1])
        offsets = range(-self.context_slices, self.context_slices + 1)
        return torch.cat([image[..., (slices + k).clamp(0, len(slices) - 1)] for k in offsets], dim=0)
