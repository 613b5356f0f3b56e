# SPDX-License-Identifier: Apache-2.0
"""Rotate, scale, shift, warp and crop a volume in one resampling."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor, ensure_tuple_rep

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.transforms.deformation import control_points, upsampling_matrix
from bundle.pyraseg.transforms.strength import ScaledByStrength
from bundle.pyraseg.transforms.volume_sampling import sample_volume

#: Voxels that a CPU works on at a time: fewer cost more calls, more leave its second-level cache.
SLAB_VOXELS = 2**17


@dataclass(frozen=True, kw_only=True)
class VolumeDeformation:
    """Hold where each voxel of the result is taken from: ``source = matrix @ (position + elastic) + center``.

    Lengths are voxels and the axes are those of the array, (W, H, D). ``position`` is counted from the middle of the
    result, ``source`` from the first voxel of the volume.
    """

    size: tuple[int, ...]  # (W, H, D) of the result
    matrix: np.ndarray  # (3, 3)
    center: np.ndarray  # (3,): where the middle of the result is taken from
    elastic: np.ndarray  # (3, K_w, K_h, K_d): displacements at the control points
    spacing: tuple[float, ...]  # (3,): distance of the control points along each axis

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ``left`` (W, K_w + 2) and ``right`` (3, K_w + 2, H * D), float32: left @ right is the source.

        The affine part is linear, so it acts on the few control points. These are upsampled along H and D here and
        along W by the product, which can be taken for a few planes at a time. The position along W and a constant are
        the last two terms.
        """
        w, h, d = (np.arange(n) - (n - 1) / 2 for n in self.size)
        up_w, up_h, up_d = (upsampling_matrix(n, gap) for n, gap in zip(self.size, self.spacing, strict=True))
        elastic = np.einsum("cd,dijk->cijk", self.matrix, self.elastic).astype(np.float32)
        right = np.empty((3, elastic.shape[1] + 2, h.size, d.size), dtype=np.float32)
        np.matmul(up_h @ elastic, up_d.T, out=right[:, :-2])
        right[:, -2] = self.matrix[:, 0, None, None]
        right[:, -1] = np.add.outer(self.matrix[:, 1, None] * h, np.zeros_like(d))
        right[:, -1] += (self.matrix[:, 2, None] * d + self.center[:, None])[:, None, :]
        left = np.column_stack([up_w, w, np.ones_like(w)]).astype(np.float32)
        return left, right.reshape(3, -1, h.size * d.size)


class RandDeformVolumed(RandomizableTransform, MapTransform, ScaledByStrength):
    """Deform volumes at random: rotation, scaling, shift, elastic displacements and crop in a single interpolation.

    All keys share one deformation, so image and label stay aligned. Every amplitude is multiplied by ``strength``; at
    0, or where the transform is not drawn, voxels are copied and only the crop remains. Rotation, scaling and elastic
    displacements are measured in mm, so that what is rigid stays rigid where voxels are not cubes. Where slices are
    thick, rotate about D alone (``rotation=[0, 0, 15]``): the other two mix voxels of a few slices, and little else.

    Items are channel-first volumes (C, W, H, D), all of the same W, H and D. Metadata and dtype are kept (an integer
    item whose mode is not ``"nearest"`` becomes float32); as with MONAI's elastic transforms, the affine in the
    metadata no longer describes the item, and there is no inverse. On one CPU thread it is several times as fast as
    MONAI's ``Rand3DElasticd`` (``benchmarks/volume_augmentation.py``).

    Args:
        keys: items to deform.
        prob: probability of deforming a volume.
        spacing: (W, H, D) distance of the voxels, mm.
        patch_size: (W, H, D) voxels of the result; None keeps the size. The middle of the item becomes the middle of
            the patch. A larger item gives real voxels to what is rotated into the patch (see ``source_size``); what
            lies outside of the item is padded.
        rotation: largest angle about the axes W, H and D, degrees; one number for all, or three.
        scale: largest relative change of magnification, isotropic, in [0, 1).
        translation: largest shift, as a fraction of the result's length along W, H and D; one number or three.
        elastic_magnitude: upper end of the standard deviation of the control points' displacements along W, H and D,
            mm; one number or three. The share of it is drawn uniformly from [0, 1) for each volume.
        elastic_spacing: distance of the control points, mm (and never less than a voxel); the smaller, the rougher
            the deformation.
        mode: ``"bilinear"`` (linear in all three axes) or ``"nearest"``, for all keys or one per key.
        padding_mode: what lies outside of the item: ``"border"`` (its nearest voxel) or ``"zeros"``, for all keys or
            one per key; None is border for bilinear and zeros for nearest, background in a label.
        allow_missing_keys: skip keys that are not in the data.

    Raises:
        PyrasegError: an argument is out of range, or (in the call) an item is not a volume or not as large as the
            first one.

    Example:
        >>> from bundle.pyraseg.transforms import RandDeformVolumed
        >>> deform = RandDeformVolumed(
        ...     ["image", "label"], mode=["bilinear", "nearest"], spacing=[1, 1, 1], patch_size=[32, 32, 24]
        ... ).set_random_state(0)
        >>> volume = {"image": torch.rand(1, 48, 48, 40), "label": torch.ones(1, 48, 48, 40, dtype=torch.uint8)}
        >>> {key: (tuple(item.shape), item.dtype) for key, item in deform(volume).items()}
        {'image': ((1, 32, 32, 24), torch.float32), 'label': ((1, 32, 32, 24), torch.uint8)}
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        prob: float = 1.0,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        patch_size: Sequence[int] | None = None,
        rotation: float | Sequence[float] = 15.0,
        scale: float = 0.1,
        translation: float | Sequence[float] = 0.0,
        elastic_magnitude: float | Sequence[float] = 0.0,
        elastic_spacing: float = 32.0,
        mode: str | Sequence[str] = "bilinear",
        padding_mode: str | Sequence[str] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.rotation = np.radians(_triple("rotation", rotation))
        self.translation = _triple("translation", translation)
        self.elastic_magnitude = _triple("elastic_magnitude", elastic_magnitude)
        self.spacing = _triple("spacing", spacing)
        self.patch_size = None if patch_size is None else tuple(int(n) for n in _triple("patch_size", patch_size))
        self.scale, self.elastic_spacing = scale, elastic_spacing
        if not 0 <= scale < 1:
            raise PyrasegError(f"RandDeformVolumed: scale is {scale}. Give a number of at least 0 and below 1.")
        if not elastic_spacing > 0 or not self.spacing.min() > 0 or min(self.patch_size or [1]) < 1:
            raise PyrasegError(
                f"RandDeformVolumed: spacing is {spacing}, elastic_spacing {elastic_spacing} and patch_size "
                f"{patch_size}. All lengths must be above 0."
            )
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        usual = ["zeros" if each == "nearest" else "border" for each in self.mode]
        self.padding_mode = ensure_tuple_rep(usual if padding_mode is None else padding_mode, len(self.keys))
        if not {*self.mode} <= {"bilinear", "nearest"} or not {*self.padding_mode} <= {"border", "zeros"}:
            raise PyrasegError(
                f"RandDeformVolumed: mode is {mode} and padding_mode {padding_mode}. Modes are 'bilinear' and "
                "'nearest', paddings 'border' and 'zeros'."
            )

    def source_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the (W, H, D) of an item from which a patch of this size needs no padding, at any draw.

        A bound: whatever the angles, plus three standard deviations of the largest elastic displacements.
        """
        reach = np.eye(3)
        for turn in _turns(np.minimum(self.rotation, math.pi / 2)):
            reach = np.maximum(np.abs(turn), np.eye(3)) @ reach
        half = np.asarray(size) / 2 + 3 * self.elastic_magnitude / self.spacing
        scaled = (reach * self.spacing / self.spacing[:, None]) @ half / (1 - self.scale)
        length = 2 * (scaled + self.translation * np.asarray(size))
        return tuple(int(n) for n in np.maximum(np.ceil(length), size))

    def randomize(self, size: Sequence[int]) -> None:
        """Draw everything for a result of this size (W, H, D), at unit amplitude and whatever the strength."""
        super().randomize(None)
        if not self._do_transform:
            return
        self._angles, self._shift = self.R.uniform(-1, 1, (2, 3))
        self._zoom = self.R.uniform(-1, 1)
        points = [control_points(n, gap) for n, gap in zip(size, self._control_gaps(), strict=True)]
        self._elastic = self.R.uniform() * self.R.standard_normal((3, *points))

    def deformation(self, source: Sequence[int], size: Sequence[int]) -> VolumeDeformation:
        """Return the deformation that was drawn, from an item of one size to a result of another (both W, H, D)."""
        rotate = np.eye(3)
        for turn in _turns(self.strength * self.rotation * self._angles):
            rotate = turn @ rotate
        rotate /= 1.0 + self.strength * self.scale * self._zoom
        magnitude = self.strength * self.elastic_magnitude / self.spacing
        middle = _first_voxel(source, size) + (np.asarray(size) - 1) / 2
        return VolumeDeformation(
            size=tuple(size),
            matrix=rotate * self.spacing / self.spacing[:, None],  # voxels to mm, rotated, and back to voxels
            center=middle + self.strength * self.translation * self._shift * np.asarray(size),
            elastic=magnitude[:, None, None, None] * self._elastic,
            spacing=self._control_gaps(),
        )

    def _control_gaps(self) -> tuple[float, ...]:
        """Return the distance of the control points along each axis, voxels."""
        return tuple(np.maximum(self.elastic_spacing / self.spacing, 1.0).tolist())

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        first = self.first_key(d)
        if first == ():  # all keys are missing, and allowed to be
            return d
        source = tuple(d[first].shape[1:])
        for key, mode in self.key_iterator(d, self.mode):
            d[key] = convert_to_tensor(d[key], track_meta=get_track_meta())
            if mode != "nearest" and not d[key].dtype.is_floating_point:  # drawn or not: a batch wants one dtype
                d[key] = d[key].float()
            if d[key].ndim != 4 or tuple(d[key].shape[1:]) != source or 0 in source:
                raise PyrasegError(
                    f"RandDeformVolumed: {key!r} has the shape {tuple(d[key].shape)} and {first!r} "
                    f"{tuple(d[first].shape)}. It deforms volumes (C, W, H, D) of one size: resample the label onto "
                    "the image's grid before it (for slices there is RandDeformd)."
                )
        size = source if self.patch_size is None else self.patch_size
        self.randomize(size)
        if self._do_transform and self.strength > 0:
            self._deform(d, self.deformation(source, size))
        elif size != source:
            self._crop(d, source, size)
        return d

    def _deform(self, d: dict[Hashable, torch.Tensor], deformation: VolumeDeformation) -> None:
        """Replace every item of this transform by its deformed one."""
        items = list(self.key_iterator(d, self.mode, self.padding_mode))
        device, (width, *plane) = d[items[0][0]].device, deformation.size
        left, right = (torch.from_numpy(each).to(device) for each in deformation.factors())
        step = max(1, SLAB_VOXELS // math.prod(plane)) if device.type == "cpu" else width
        sources = {key: d[key].as_subclass(torch.Tensor).contiguous() for key, *_ in items}
        sources |= {key: sources[key].float() for key, mode, _ in items if mode != "nearest"}
        results = {key: item.new_empty((len(item), *deformation.size)) for key, item in sources.items()}
        for start in range(0, width, step):
            coordinates = torch.matmul(left[start : start + step], right).flatten(1)
            for key, mode, padding_mode in items:
                slab = sample_volume(sources[key], coordinates, mode=mode, padding_mode=padding_mode)
                results[key][:, start : start + step] = slab.view(len(slab), -1, *plane)
        for key, result in results.items():
            d[key] = convert_to_dst_type(result, dst=d[key], dtype=d[key].dtype)[0]

    def _crop(self, d: dict[Hashable, torch.Tensor], source: Sequence[int], size: Sequence[int]) -> None:
        """Replace every item by its middle, voxel by voxel, padded where it is smaller than the patch."""
        starts = _first_voxel(source, size).tolist()
        for key, padding_mode in self.key_iterator(d, self.padding_mode):
            item = d[key].as_subclass(torch.Tensor)
            for axis, (start, n, length) in enumerate(zip(starts, source, size, strict=True), 1):
                index = torch.arange(start, start + length, device=item.device)
                item = item.index_select(axis, index.clamp(0, n - 1))
                if padding_mode == "zeros" and (start < 0 or start + length > n):
                    outside = ((index < 0) | (index >= n)).view([-1 if i == axis else 1 for i in range(4)])
                    item = item.masked_fill(outside, 0)
            d[key] = convert_to_dst_type(item, dst=d[key], dtype=d[key].dtype)[0]


def _first_voxel(source: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """Return where a patch in the middle of an item starts: whole voxels, negative where the patch is larger."""
    return (np.asarray(source) - np.asarray(size)) // 2


def _turns(angles: np.ndarray) -> list[np.ndarray]:
    """Return the rotation matrices about the axes W, H and D by these angles, radians."""
    turns = []
    for axis, angle in enumerate(angles):
        turn, (i, j) = np.eye(3), np.delete(np.arange(3), axis)
        turn[i, i], turn[j, j] = math.cos(angle), math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        turns.append(turn)
    return turns


def _triple(name: str, value: float | Sequence[float]) -> np.ndarray:
    """Return a number, or one for each of W, H and D, as three: float64."""
    numbers = np.asarray(value, dtype=float)
    if numbers.shape not in ((), (3,)) or not np.isfinite(numbers).all() or (numbers < 0).any():
        raise PyrasegError(
            f"RandDeformVolumed: {name} is {value}. Give one number of at least 0, or one for each of W, H and D."
        )
    return np.broadcast_to(numbers, 3).copy()
