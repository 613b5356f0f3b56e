# SPDX-License-Identifier: Apache-2.0
"""Give slices a common pixel size."""

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Resize
from monai.transforms.spatial.functional import resize
from monai.utils import ensure_tuple_rep

from bundle.pyraseg.errors import PyrasegError


class ResampleSlices(Resize):
    """Resample every slice of a volume to a pixel spacing; slices are neither added nor mixed.

    That is exact for tilted and unevenly spaced stacks, which a resampling in three dimensions is not. It is MONAI's
    `Resize` to the size that the spacing asks for, with its inverse.

    Args:
        spacing: mm between pixels, along both axes of the slice.
        mode: "trilinear" for images, "nearest" for labels.

    Shapes: (C, W, H, D) -> (C, W', H', D).
    """

    def __init__(self, spacing: float, *, mode: str = "trilinear") -> None:
        super().__init__(spatial_size=-1, mode=mode)
        if spacing <= 0:
            raise PyrasegError(f"The target spacing of slices must be positive, got {spacing} mm.")
        self.spacing = spacing

    def __call__(self, img: MetaTensor) -> MetaTensor:
        if img.ndim != 4:
            raise PyrasegError(
                f"{img.meta.get('filename_or_obj', 'An image')} has the shape {tuple(img.shape)}: a photograph has no "
                "spacing in mm. Use Resized for photographs."
            )
        width, height = (
            max(1, round(size * float(pixel) / self.spacing))
            for size, pixel in zip(img.shape[1:3], img.pixdim, strict=False)
        )
        size = (width, height, img.shape[3])
        smooth = self.mode != "nearest" and (width < img.shape[1] or height < img.shape[2])
        return resize(img, size, self.mode, None, img.dtype, 3, smooth, None, False, self.get_transform_info())


class ResampleSlicesd(MapTransform, InvertibleTransform):
    """Apply `ResampleSlices` to the keys, each with its mode."""

    def __init__(
        self,
        keys: KeysCollection,
        *,
        spacing: float,
        mode: str | Sequence[str] = "trilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.resamplers = [ResampleSlices(spacing, mode=mode) for mode in ensure_tuple_rep(mode, len(self.keys))]

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        pairs = self.key_iterator(data, self.resamplers)
        return {**data, **{key: resample(data[key]) for key, resample in pairs}}

    def inverse(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        pairs = self.key_iterator(data, self.resamplers)
        return {**data, **{key: resample.inverse(data[key]) for key, resample in pairs}}
