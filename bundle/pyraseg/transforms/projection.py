# SPDX-License-Identifier: Apache-2.0
"""Treat a projection, whose DICOM file is read as a stack of one slice, as the 2-D image that it is."""

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from bundle.pyraseg.core import PyrasegError


class DropSliceAxisd(MapTransform):
    """Drop the slice axis of images that have one slice: (C, W, H, 1) -> (C, W, H); 2-D images stay as they are.

    So a radiograph is the same to all that follows, whether it comes as DICOM or as PNG. There is no inverse: what is
    predicted for it is a 2-D label map.

    Raises:
        PyrasegError: an image has several slices.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        return {**data, **{key: self.drop(data[key]) for key in self.key_iterator(data)}}

    def drop(self, image: MetaTensor) -> torch.Tensor:
        """Return the 2-D image; metadata are kept."""
        if image.ndim == 3:
            return image
        if image.shape[-1] != 1:
            raise PyrasegError(
                f"{image.meta.get('filename_or_obj', 'An image')} has {image.shape[-1]} slices or frames, a projection "
                "has one. Use a task for volumes, or give each frame as an image of its own."
            )
        return image[..., 0]
