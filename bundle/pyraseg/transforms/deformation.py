# SPDX-License-Identifier: Apache-2.0
"""Rotate, scale, shear, shift, warp and distort a slice in one resampling."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import MapTransform, RandomizableTransform
from monai.transforms.utils import create_control_grid
from monai.utils import convert_to_dst_type, convert_to_tensor, ensure_tuple_rep
from torch.nn.functional import grid_sample, interpolate

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.transforms.strength import ScaledByStrength


@dataclass(frozen=True, kw_only=True)
class Deformation:
    """Hold where each pixel of the result is taken from: ``source = matrix @ (distorted + elastic) + shift``.

    Lengths are pixels, the origin is the image's center, and the axes are those of the array, (W, H).
    """

    matrix: np.ndarray  # (2, 2)
    shift: np.ndarray  # (2,)
    elastic: np.ndarray  # (2, K_w, K_h): displacements at the control points
    spacing: float  # distance of the control points
    distorted: tuple[np.ndarray, np.ndarray]  # (W,) and (H,): coordinate of each pixel center, moved along its axis

    def sampling_grid(self, device: torch.device | None = None) -> torch.Tensor:
        """Return the grid for ``grid_sample`` with ``align_corners=False``: (1, W, H, 2), last axis (h, w) in [-1, 1].

        The affine part is linear, so it acts on the few control points. With the distorted coordinates and a constant
        as two more terms, left (W, K_w + 2) @ right (K_w + 2, H, 2) gives the whole grid in one matrix product.
        """
        w, h = self.distorted
        elastic = np.einsum("cd,dij->ijc", self.matrix, self.elastic)
        right = np.empty((elastic.shape[0] + 2, h.size, 2), dtype=np.float32)
        right[:-2] = upsampling_matrix(h.size, self.spacing) @ elastic
        right[-2] = self.matrix[:, 0]
        right[-1] = h[:, None] * self.matrix[:, 1] + self.shift
        right *= 2.0 / np.array([w.size, h.size], dtype=np.float32)
        left = np.column_stack([upsampling_matrix(w.size, self.spacing), w, np.ones_like(w)]).astype(np.float32)
        right = np.ascontiguousarray(right[..., ::-1]).reshape(len(right), -1)  # grid_sample wants the last axis first
        factors = (torch.from_numpy(factor).to(device) for factor in (left, right))
        return torch.matmul(*factors).view(1, w.size, h.size, 2)


@lru_cache(maxsize=64)
def upsampling_matrix(size: int, spacing: float) -> np.ndarray:
    """Return the bicubic upsampling of one axis from its control points to its pixels: (size, K), float32.

    Control points, interpolation and crop are those of MONAI's ``Rand2DElastic``.
    """
    points = control_points(size, spacing)
    fine = int(points * spacing)
    # Bicubic interpolation is separable and linear: applied along one axis of the identity it gives its own matrix.
    matrix = interpolate(torch.eye(points)[None, None], size=(fine, points), mode="bicubic", align_corners=False)[0, 0]
    start = fine // 2 - size // 2  # as CenterSpatialCrop
    return matrix[start : start + size].numpy()


@lru_cache(maxsize=64)
def control_points(size: int, spacing: float) -> int:
    """Return how many control points ``spacing`` pixels apart MONAI lays over an axis of ``size`` pixels."""
    return create_control_grid((size,), (spacing,), homogeneous=False).shape[1]


def distort_axis(size: int, widths: np.ndarray) -> np.ndarray:
    """Return the pixel centers of an axis after its equal cells took these relative widths: (size,).

    Piecewise linear, from edge to edge: the widths are normalized, so nothing leaves the image. Positive widths keep
    the order of the pixels.
    """
    borders = np.concatenate([[0.0], np.cumsum(widths)]) / np.sum(widths)
    return (np.interp((np.arange(size) + 0.5) / size, np.linspace(0.0, 1.0, borders.size), borders) - 0.5) * size


class RandDeformd(RandomizableTransform, MapTransform, ScaledByStrength):
    """Deform 2-D slices at random: affine, elastic and grid distortion in a single interpolation.

    All keys share one deformation, so image and label stay aligned. Every amplitude is multiplied by ``strength``; at
    0, or where the transform is not drawn, the items are returned as they are. The elastic displacements are
    distributed as those of MONAI's ``Rand2DElasticd`` with ``magnitude_range=(0, elastic_magnitude)``.

    Items are channel-first slices (C, W, H), all of the same W and H. Shape, metadata and dtype are kept (an integer
    item whose mode is not ``"nearest"`` becomes float32); as with MONAI's elastic transforms, the affine in the
    metadata no longer describes the item, and there is no inverse.

    Args:
        keys: items to deform.
        prob: probability of deforming a slice.
        rotation: largest angle, degrees.
        scale: largest relative change of magnification, isotropic, in [0, 1).
        shear: largest shear factor, per axis.
        translation: largest shift per axis, as a fraction of its length.
        elastic_magnitude: upper end of the standard deviation of the control points' displacements, pixels; it is
            drawn uniformly from [0, elastic_magnitude) for each slice.
        elastic_spacing: distance of the control points, pixels; the smaller, the rougher the deformation.
        grid_distortion: largest relative change of a cell's width before the widths of an axis are normalized, [0, 1).
        grid_cells: cells per axis of the grid distortion.
        mode: ``"bilinear"`` or ``"nearest"``, for all keys or one per key.
        padding_mode: ``"border"``, ``"zeros"`` or ``"reflection"``, for all keys or one per key.
        allow_missing_keys: skip keys that are not in the data.

    Raises:
        PyrasegError: if an amplitude is out of range, or (in the call) an item is not a 2-D slice or not as large as
            the first one.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        prob: float = 1.0,
        rotation: float = 15.0,
        scale: float = 0.1,
        shear: float = 0.0,
        translation: float = 0.0,
        elastic_magnitude: float = 0.0,
        elastic_spacing: float = 32.0,
        grid_distortion: float = 0.0,
        grid_cells: int = 5,
        mode: str | Sequence[str] = "bilinear",
        padding_mode: str | Sequence[str] = "border",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        amplitudes = {"rotation": rotation, "shear": shear, "translation": translation, "scale": scale}
        amplitudes |= {"elastic_magnitude": elastic_magnitude, "grid_distortion": grid_distortion}
        for name, value in amplitudes.items():
            limit = 1.0 if name in ("scale", "grid_distortion") else math.inf
            if not 0.0 <= value < limit:
                raise PyrasegError(f"RandDeformd: {name} is {value}. Give a number of at least 0 and below {limit}.")
        if elastic_spacing < 1 or grid_cells < 1:
            raise PyrasegError(
                f"RandDeformd: elastic_spacing is {elastic_spacing} and grid_cells is {grid_cells}. "
                "Both must be at least 1."
            )
        self.rotation, self.scale, self.shear, self.translation = math.radians(rotation), scale, shear, translation
        self.elastic_magnitude, self.elastic_spacing = elastic_magnitude, elastic_spacing
        self.grid_distortion, self.grid_cells = grid_distortion, grid_cells
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.padding_mode = ensure_tuple_rep(padding_mode, len(self.keys))

    def randomize(self, size: Sequence[int]) -> None:
        """Draw everything for a slice of this size (W, H), at unit amplitude and whatever the strength."""
        super().randomize(None)
        if not self._do_transform:
            return
        self._angle, self._zoom = self.R.uniform(-1, 1, 2)
        self._shear, self._shift = self.R.uniform(-1, 1, (2, 2))
        self._cells = self.R.uniform(-1, 1, (2, self.grid_cells))
        points = [control_points(n, self.elastic_spacing) for n in size]
        self._elastic = self.R.uniform() * self.R.standard_normal((2, *points))

    def deformation(self, size: Sequence[int]) -> Deformation:
        """Return the deformation that was drawn for this size (W, H), at the present strength."""
        angle = self.strength * self.rotation * self._angle
        rotate = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        shear = np.eye(2) + self.strength * self.shear * np.array([[0, self._shear[0]], [self._shear[1], 0]])
        widths = 1.0 + self.strength * self.grid_distortion * self._cells
        return Deformation(
            matrix=rotate @ shear / (1.0 + self.strength * self.scale * self._zoom),
            shift=self.strength * self.translation * self._shift * np.asarray(size),
            elastic=self.strength * self.elastic_magnitude * self._elastic,
            spacing=self.elastic_spacing,
            distorted=(distort_axis(size[0], widths[0]), distort_axis(size[1], widths[1])),
        )

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        first = self.first_key(d)
        if first == ():  # all keys are missing, and allowed to be
            return d
        size = tuple(d[first].shape[1:])
        for key, mode in self.key_iterator(d, self.mode):
            d[key] = convert_to_tensor(d[key], track_meta=get_track_meta())
            if mode != "nearest" and not d[key].dtype.is_floating_point:  # drawn or not: a batch wants one dtype
                d[key] = d[key].float()
            if d[key].ndim != 3 or tuple(d[key].shape[1:]) != size:
                raise PyrasegError(
                    f"RandDeformd: {key!r} has the shape {tuple(d[key].shape)} and {first!r} {tuple(d[first].shape)}. "
                    "It deforms 2-D slices (C, W, H) of one size: cut the volume into slices, or resize, before it."
                )
        self.randomize(size)
        if not self._do_transform or self.strength == 0:
            return d
        grid = self.deformation(size).sampling_grid(d[first].device)
        for key, mode, padding_mode in self.key_iterator(d, self.mode, self.padding_mode):
            d[key] = resample(d[key], grid, mode=mode, padding_mode=padding_mode)
        return d


def resample(image: torch.Tensor, grid: torch.Tensor, *, mode: str, padding_mode: str) -> torch.Tensor:
    """Sample a (C, W, H) image at a grid (1, W', H', 2) and keep its dtype and metadata.

    Computed in float32, so labels are exact up to 2**24.
    """
    values = image.as_subclass(torch.Tensor).float()[None]
    sampled = grid_sample(values, grid, mode=mode, padding_mode=padding_mode, align_corners=False)[0]
    return convert_to_dst_type(sampled, dst=image, dtype=image.dtype)[0]
