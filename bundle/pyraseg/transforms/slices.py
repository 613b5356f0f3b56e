# SPDX-License-Identifier: Apache-2.0
"""Slices of an image: their orientation, their neighbors as channels, and images that are one slice."""

from collections.abc import Hashable, Mapping

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Transform
from monai.transforms.spatial.functional import orientation

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import slice_orientation


class OrientSlices(InvertibleTransform, Transform):
    """Orient a volume (C, W, H, D) by `slice_orientation`; a 2-D image (C, W, H) has no orientation and stays as it is.

    Unlike MONAI's `Orientation`, a coronal or sagittal series keeps its slices in the acquisition plane: nothing that
    was measured in one slice is spread over many.
    """

    def __call__(self, img: MetaTensor) -> MetaTensor:
        if img.ndim == 3:
            return img
        affine = img.affine.numpy()
        return orientation(img, affine, slice_orientation(affine), False, self.get_transform_info())

    def inverse(self, data: MetaTensor) -> torch.Tensor:
        if data.ndim == 3:
            return data
        affine = self.pop_transform(data)["extra_info"]["original_affine"]
        back = nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], slice_orientation(np.asarray(affine)))
        with self.trace_transform(False):
            return orientation(data, data.affine.numpy(), back, False, self.get_transform_info())


class OrientSlicesd(MapTransform, InvertibleTransform):
    """Apply `OrientSlices` to the keys."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.orient = OrientSlices()

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        return {**data, **{key: self.orient(data[key]) for key in self.key_iterator(data)}}

    def inverse(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        return {**data, **{key: self.orient.inverse(data[key]) for key in self.key_iterator(data)}}


class StackContextSlicesd(MapTransform):
    """Give every slice the channels of its neighbors: (C, W, H, D) -> (C * (2 * context_slices + 1), W, H, D).

    Channels run from the slice `context_slices` below to the one as far above, each with its own C channels; beyond the
    first and the last slice, that slice is repeated. With 0 nothing changes. The result takes the memory of C channels,
    for the others are views of the same slices: it is there to be read, not to be written to.

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
        channels, width, height, depth = image.shape
        around = self.context_slices
        # All channels of a slice, then those of the next: so the neighbors of each slice lie about it in memory, and
        # the stacked volume is a view.
        padded = torch.empty((depth + 2 * around, channels, height, width), dtype=image.dtype, device=image.device)
        for place, slices in enumerate(padded):
            slices.copy_(image.as_subclass(torch.Tensor)[..., min(max(place - around, 0), depth - 1)].swapaxes(1, 2))
        plane = height * width
        shape = (channels * (2 * around + 1), width, height, depth)
        stacked = padded.as_strided(shape, (plane, 1, width, channels * plane))
        return stacked.as_subclass(MetaTensor).copy_meta_from(image) if isinstance(image, MetaTensor) else stacked


class DropSliceAxisd(MapTransform):
    """Drop the slice axis of images that have one slice: (C, W, H, 1) -> (C, W, H); 2-D images stay as they are.

    So a radiograph is the same to all that follows, whether it comes as DICOM or as PNG. There is no inverse: what is
    predicted for it is a 2-D label map.

    Raises:
        PyrasegError: an image has several slices.
    """

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
