# SPDX-License-Identifier: Apache-2.0
"""Give slices a common pixel size."""

from collections.abc import Hashable, Mapping, Sequence

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Resize
from monai.transforms.utils import scale_affine
from monai.utils import TraceKeys, ensure_tuple_rep

from bundle.pyraseg.errors import PyrasegError


class ResampleSlices(Resize):
    """Resample every slice of a volume to a pixel spacing; slices are neither added nor mixed.

    That is exact for tilted and unevenly spaced stacks, which a resampling in three dimensions is not. The inverse is
    that of MONAI's `Resize`; the way there is torch's antialiased bilinear filter, because the Gaussian of `Resize`
    pads with zeros, which makes a bright rim around a dark image. Labels take the pixel at the nearest centre
    ("nearest-exact"): torch's "nearest" is up to half a target pixel beside it.

    Args:
        spacing: mm between pixels, along both axes of the slice.
        mode: "trilinear" for images, "nearest" for labels.

    Shapes: (C, W, H, D) -> (C, W', H', D).
    """

    def __init__(self, spacing: float, *, mode: str = "trilinear") -> None:
        super().__init__(spatial_size=-1, mode="nearest-exact" if mode == "nearest" else mode)
        if spacing <= 0:
            raise PyrasegError(f"The target spacing of slices must be positive, got {spacing} mm.")
        self.spacing = spacing

    def __call__(self, img: MetaTensor) -> MetaTensor:
        if img.ndim != 4 or not img.meta.get("has_geometry", True):
            raise PyrasegError(
                f"{img.meta.get('filename_or_obj', 'An image')} has the shape {tuple(img.shape)} and no place in the "
                "patient, so no spacing in mm: a photograph or a projection. Use Resized for it."
            )
        width, height = (
            max(1, round(size * float(pixel) / self.spacing))
            for size, pixel in zip(img.shape[1:3], img.pixdim, strict=False)
        )
        tracked = self.track_transform_meta(
            img,
            sp_size=(width, height, img.shape[3]),
            affine=scale_affine(img.shape[1:], (width, height, img.shape[3])),
            extra_info={"mode": self.mode, "align_corners": TraceKeys.NONE, "dtype": "float32", "new_dim": 0},
            orig_size=tuple(img.shape[1:]),
            transform_info=self.get_transform_info(),
        )
        slices = img.as_tensor().float().permute(3, 0, 1, 2)
        if self.mode == "nearest-exact":
            resampled = F.interpolate(slices, (width, height), mode=self.mode)
        else:
            resampled = F.interpolate(slices, (width, height), mode="bilinear", antialias=True)
        return MetaTensor(resampled.permute(1, 2, 3, 0).contiguous()).copy_meta_from(tracked)


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
