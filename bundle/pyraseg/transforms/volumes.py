# SPDX-License-Identifier: Apache-2.0
"""Give volumes common axes and a common spacing, for networks that see them in three dimensions."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Transform
from monai.transforms.spatial.functional import orientation
from monai.transforms.utils import scale_affine
from monai.utils import TraceKeys, ensure_tuple_rep

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import require_volume, resampled_shape, volume_orientation
from bundle.pyraseg.runtime import enlarged, nearest, shrunk
from bundle.pyraseg.transforms.reader import geometry_of


class OrientVolumes(InvertibleTransform, Transform):
    """Bring a volume (C, W, H, D) of any series onto the axes LPS: W grows to the left, H to the back, D to the head.

    Raises:
        PyrasegError: in the call, the image is no evenly spaced, straight volume, see `require_volume`.
    """

    def __call__(self, img: MetaTensor) -> MetaTensor:
        require_volume(geometry_of(img), name=img.meta.get("filename_or_obj", "An image"))
        affine = img.affine.numpy()
        return orientation(img, affine, volume_orientation(affine), False, self.get_transform_info())

    def inverse(self, data: MetaTensor) -> torch.Tensor:
        affine = np.asarray(self.pop_transform(data)[TraceKeys.EXTRA_INFO]["original_affine"])
        with self.trace_transform(False):
            return orientation(data, data.affine.numpy(), back_from_volume(affine), False, self.get_transform_info())


def back_from_volume(affine: np.ndarray) -> np.ndarray:
    """Return the permutation and flips, in nibabel's notation, that undo `volume_orientation` of an affine."""
    straight = [[0, 1], [1, 1], [2, 1]]
    return nib.orientations.ornt_transform(straight, volume_orientation(affine))


class ResampleVolumes(InvertibleTransform, Transform):
    """Resample a volume (C, W, H, D) to a spacing, along one axis after the other.

    Images are linear, and antialiased where voxels become larger; labels take the voxel at the nearest center. The size
    becomes a whole number of voxels, so their true size may differ from the spacing by up to half of one over the whole
    volume. Beside the result, one slice is held. The inverse is linear too, or nearest.

    Args:
        spacing: mm between voxels along W, H and D.
        mode: "bilinear" for images (the word is MONAI's; it is linear along all three axes), "nearest" for labels.

    Raises:
        PyrasegError: the spacing is not three positive numbers, or (when called) the image is no volume, or has a size
            that cannot be resampled, see `resampled_shape`.

    Shapes: (C, W, H, D) -> (C, W', H', D').

    >>> image = MetaTensor(torch.rand(1, 64, 48, 10), affine=np.diag([0.5, 0.5, 3, 1]))
    >>> resampled = ResampleVolumes([1, 1, 1])(image)
    >>> tuple(resampled.shape), resampled.pixdim.tolist()
    ((1, 32, 24, 30), [1.0, 1.0, 1.0])
    """

    def __init__(self, spacing: Sequence[float], *, mode: str = "bilinear") -> None:
        if mode not in ("bilinear", "nearest"):
            raise PyrasegError(f"The modes of a resampling are 'bilinear' and 'nearest', not {mode!r}.")
        if isinstance(spacing, int | float) or len(spacing) != 3 or min(spacing) <= 0:
            raise PyrasegError(
                f"The spacing of a volume is three numbers above 0, mm along W, H and D, such as [1.5, 1.5, 2], not "
                f"{spacing}."
            )
        self.spacing = tuple(map(float, spacing))
        self.mode = mode

    def __call__(self, img: MetaTensor) -> MetaTensor:
        name = img.meta.get("filename_or_obj", "An image")
        if img.ndim != 4:
            raise PyrasegError(f"{name} has the shape {tuple(img.shape)}, and a volume has (channels, W, H, D).")
        size = resampled_shape(img.shape[1:], img.pixdim.tolist(), self.spacing, name=name)
        tracked = self.track_transform_meta(
            img,
            sp_size=size,
            affine=scale_affine(img.shape[1:], size),
            extra_info={"mode": "bilinear" if self.mode == "bilinear" else "nearest"},
            orig_size=tuple(img.shape[1:]),
            transform_info=self.get_transform_info(),
        )
        values = _array(img)
        if self.mode == "nearest":
            result = nearest(values, size)
        else:
            result = shrunk((values[..., k] for k in range(values.shape[3])), values.shape[3], size)
        return MetaTensor(torch.from_numpy(result).to(img.device)).copy_meta_from(tracked)

    def inverse(self, data: MetaTensor) -> MetaTensor:
        done = self.pop_transform(data)
        size, mode = done[TraceKeys.ORIG_SIZE], done[TraceKeys.EXTRA_INFO]["mode"]
        tracked = self.track_transform_meta(data, affine=scale_affine(data.shape[1:], size))
        values = _array(data)
        if "nearest" in mode:
            result = nearest(values, size)
        else:
            result = enlarged([values.astype(np.float32, copy=False)], len(values), values.shape[1:], size)
        return MetaTensor(torch.from_numpy(result).to(data.device)).copy_meta_from(tracked)


def size_before(image: MetaTensor) -> tuple[int, int, int] | None:
    """Return the voxels (W, H, D) that a preprocessed volume had before its resampling, on the axes that it has now.

    None where the preprocessing did anything else than `OrientVolumes` and `ResampleVolumes`.
    """
    steps = image.applied_operations
    if [step[TraceKeys.CLASS_NAME] for step in steps] != [OrientVolumes.__name__, ResampleVolumes.__name__]:
        return None
    width, height, depth = map(int, steps[1][TraceKeys.ORIG_SIZE])
    return width, height, depth


def on_input_axes(labels: np.ndarray, image: MetaTensor) -> MetaTensor:
    """Return labels that lie on the axes of a preprocessed volume on those of the input, with its affine.

    Args:
        labels: (W, H, D), of the size that `size_before` says.
        image: that went through `OrientVolumes`.

    Returns:
        (1, W', H', D'), with the affine and the name of the input as metadata.
    """
    affine = np.asarray(image.applied_operations[0][TraceKeys.EXTRA_INFO]["original_affine"])
    turned = nib.orientations.apply_orientation(labels, back_from_volume(affine))
    values = torch.from_numpy(np.ascontiguousarray(turned.T)).permute(2, 1, 0)  # slice after slice in memory
    named = {key: image.meta[key] for key in ("filename_or_obj",) if key in image.meta}
    return MetaTensor(values[None], meta={**named, "affine": torch.as_tensor(affine)})


def _array(image: torch.Tensor) -> np.ndarray:
    return image.detach().cpu().as_subclass(torch.Tensor).numpy()


class OrientVolumesd(MapTransform, InvertibleTransform):
    """Apply `OrientVolumes` to the keys."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.orient = OrientVolumes()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.orient(data[key]) for key in self.key_iterator(data)}}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.orient.inverse(data[key]) for key in self.key_iterator(data)}}


class ResampleVolumesd(MapTransform, InvertibleTransform):
    """Apply `ResampleVolumes` to the keys, each with its mode."""

    def __init__(
        self,
        keys: KeysCollection,
        *,
        spacing: Sequence[float],
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.resamplers = [ResampleVolumes(spacing, mode=one) for one in ensure_tuple_rep(mode, len(self.keys))]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        pairs = self.key_iterator(data, self.resamplers)
        return {**data, **{key: resampler(data[key]) for key, resampler in pairs}}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        pairs = self.key_iterator(data, self.resamplers)
        return {**data, **{key: resampler.inverse(data[key]) for key, resampler in pairs}}
