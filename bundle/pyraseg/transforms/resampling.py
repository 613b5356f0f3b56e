# SPDX-License-Identifier: Apache-2.0
"""Give slices a common pixel size, and photographs a common size."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Resize
from monai.transforms.utils import scale_affine
from monai.utils import TraceKeys, ensure_tuple_rep

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import resampled_size

#: Values that become float32 at a time where slices or a photograph are resized.
BAND = 1 << 24


def resize_rasters(images: torch.Tensor, size: tuple[int, int], **options: Any) -> torch.Tensor:
    """Return (C, W, H[, D]) at the size (H, W), float32, by `torch.nn.functional.interpolate` with its options.

    Of a volume each slice is resized, some at a time: what is in between takes little memory. In the result slices lie
    one after the other, and rows in a slice, whatever they did before.
    """
    if images.ndim == 3:
        return F.interpolate(images.mT[None].float(), size, **options)[0].mT
    slices = images.permute(0, 3, 2, 1)
    at_a_time = max(1, BAND // max(1, slices[:, 0].numel()))
    if at_a_time >= slices.shape[1]:
        return F.interpolate(slices.float(), size, **options).permute(0, 3, 2, 1)
    resized = torch.empty((*slices.shape[:2], *size), device=images.device)
    for some, place in zip(slices.split(at_a_time, dim=1), resized.split(at_a_time, dim=1), strict=True):
        place.copy_(F.interpolate(some.float(), size, **options))
    return resized.permute(0, 3, 2, 1)


def shrink_photograph(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return (C, W, H) at the size (H, W) by the antialiased bilinear filter, to the bit as `resize_rasters` does.

    The filter works along rows first and along columns then, so rows can be taken some at a time: a photograph of
    hundreds of megapixels never is float32 as a whole.
    """
    rows = max(1, BAND // (image.shape[0] * image.shape[1]))
    options = {"mode": "bilinear", "antialias": True}
    bands = [
        F.interpolate(band.float()[None], (band.shape[1], size[1]), **options) for band in image.mT.split(rows, dim=1)
    ]
    return F.interpolate(torch.cat(bands, dim=2), size, **options)[0].mT


def enlarge_photograph(images: torch.Tensor, size: tuple[int, int]) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield parts of (C, W, H) at the size (H, W), bilinear, to the bit as `resize_rasters` does.

    The filter works along rows first and along columns then, so columns of the result can be made some at a time.

    Returns:
        For each part its columns and (C, columns, H).
    """
    height, width = size
    columns = max(1, BAND // (images.shape[0] * height))
    wide = F.interpolate(images.mT[None], (images.shape[2], width), mode="bilinear")
    for start in range(0, width, columns):
        band = wide[..., start : start + columns]
        yield slice(start, start + columns), F.interpolate(band, (height, band.shape[3]), mode="bilinear")[0].mT


class AntialiasedResize(Resize):
    """MONAI's `Resize`, with its inverse and its tracking, over torch's antialiased bilinear filter.

    The Gaussian that `Resize` smooths with before it shrinks pads with zeros, which makes a bright rim around a dark
    image. Labels take the pixel at the nearest center ("nearest-exact"): torch's "nearest" is up to half a target pixel
    beside it.

    Args:
        mode: "bilinear" for images, "nearest" for labels.
    """

    def __init__(self, *, mode: str) -> None:
        if mode not in ("bilinear", "nearest"):
            raise PyrasegError(f"The modes of a resize are 'bilinear' and 'nearest', not {mode!r}.")
        super().__init__(spatial_size=-1, mode="nearest-exact")
        self.smooth = mode == "bilinear"

    def to_size(self, img: MetaTensor, width: int, height: int) -> MetaTensor:
        """Return (C, W, H[, D]) with the new W and H, float32."""
        size = (width, height, *img.shape[3:])
        inverse_mode = "nearest-exact" if not self.smooth else "bilinear" if img.ndim == 3 else "trilinear"
        tracked = self.track_transform_meta(
            img,
            sp_size=size,
            affine=scale_affine(img.shape[1:], size),
            extra_info={"mode": inverse_mode, "align_corners": TraceKeys.NONE, "dtype": "float32", "new_dim": 0},
            orig_size=tuple(img.shape[1:]),
            transform_info=self.get_transform_info(),
        )
        if self.smooth and img.ndim == 3:
            return MetaTensor(shrink_photograph(img.as_tensor(), (height, width))).copy_meta_from(tracked)
        options = {"mode": "bilinear", "antialias": True} if self.smooth else {"mode": "nearest-exact"}
        return MetaTensor(resize_rasters(img.as_tensor(), (height, width), **options)).copy_meta_from(tracked)

    def inverse_transform(self, data: MetaTensor, transform: dict[str, Any]) -> MetaTensor:
        """Return what `Resize` would, slice by slice: in three dimensions it takes twice the time for the same."""
        mode = transform[TraceKeys.EXTRA_INFO]["mode"]
        mode = mode if "nearest" in mode else "bilinear"
        width, height, *_ = size = transform[TraceKeys.ORIG_SIZE]
        tracked = self.track_transform_meta(data, affine=scale_affine(data.shape[1:], size))
        return MetaTensor(resize_rasters(data.as_tensor(), (height, width), mode=mode)).copy_meta_from(tracked)


class ResampleSlices(AntialiasedResize):
    """Resample every slice of a volume to a pixel spacing; slices are neither added nor mixed.

    That is exact for tilted and unevenly spaced stacks, which a resampling in three dimensions is not.

    Args:
        spacing: mm between pixels, along both axes of the slice.
        mode: "bilinear" for images, "nearest" for labels.

    Raises:
        PyrasegError: the spacing is not positive, or (when called) an image has no size in mm, or one that cannot be
            resampled, see `resampled_size`.

    Shapes: (C, W, H, D) -> (C, W', H', D).
    """

    def __init__(self, spacing: float, *, mode: str = "bilinear") -> None:
        super().__init__(mode=mode)
        if spacing <= 0:
            raise PyrasegError(f"The target spacing of slices must be positive, got {spacing} mm.")
        self.spacing = spacing

    def __call__(self, img: MetaTensor) -> MetaTensor:
        if img.ndim != 4 or not img.meta.get("has_geometry", True):
            raise PyrasegError(
                f"{img.meta.get('filename_or_obj', 'An image')} has no patient position (a radiograph, an ultrasound "
                f"image or a photograph, of shape {tuple(img.shape)}), and this model is for slices of volumes, whose "
                "pixels have a size in mm. `pyraseg models` lists the included models, and --model gives one to "
                "`pyraseg segment`."
            )
        width, height, *_ = img.pixdim
        name = img.meta.get("filename_or_obj", "An image")
        return self.to_size(img, *resampled_size(img.shape[1:3], (width, height), self.spacing, name=name))


class ResizePhotograph(AntialiasedResize):
    """Resize a photograph (C, W, H) to `size`, (W, H); its aspect ratio gives way."""

    def __init__(self, size: Sequence[int], *, mode: str = "bilinear") -> None:
        super().__init__(mode=mode)
        self.size = tuple(size)

    def __call__(self, img: MetaTensor) -> MetaTensor:
        if img.ndim != 3:
            raise PyrasegError(
                f"{img.meta.get('filename_or_obj', 'An image')} has the shape {tuple(img.shape)}: a volume. "
                "Use ResampleSlicesd for it."
            )
        return self.to_size(img, *self.size)


class _Resizerd(MapTransform, InvertibleTransform):
    """Apply one resizer a key, and its inverse."""

    def __init__(self, keys: KeysCollection, resizers: Sequence[AntialiasedResize], allow_missing_keys: bool) -> None:
        super().__init__(keys, allow_missing_keys)
        self.resizers = resizers

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        pairs = self.key_iterator(data, self.resizers)
        return {**data, **{key: resizer(data[key]) for key, resizer in pairs}}

    def inverse(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        pairs = self.key_iterator(data, self.resizers)
        return {**data, **{key: resizer.inverse(data[key]) for key, resizer in pairs}}


class ResampleSlicesd(_Resizerd):
    """Apply `ResampleSlices` to the keys, each with its mode."""

    def __init__(
        self,
        keys: KeysCollection,
        *,
        spacing: float,
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        modes = ensure_tuple_rep(mode, len((keys,) if isinstance(keys, str) else keys))
        super().__init__(keys, [ResampleSlices(spacing, mode=m) for m in modes], allow_missing_keys)


class ResizePhotographd(_Resizerd):
    """Apply `ResizePhotograph` to the keys, each with its mode."""

    def __init__(
        self,
        keys: KeysCollection,
        *,
        size: Sequence[int],
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        modes = ensure_tuple_rep(mode, len((keys,) if isinstance(keys, str) else keys))
        super().__init__(keys, [ResizePhotograph(size, mode=m) for m in modes], allow_missing_keys)
