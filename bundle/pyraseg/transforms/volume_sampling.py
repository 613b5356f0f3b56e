# SPDX-License-Identifier: Apache-2.0
"""Take the values of a volume at given places, several times as fast on a CPU as ``grid_sample`` in three dimensions.

PyTorch's ``grid_sample`` has vector code for images only. For volumes it visits one voxel after the other, so here
every step is one operation on many voxels: flat indices, eight gathers, seven linear interpolations.
"""

from collections.abc import Sequence

import torch


def sample_volume(
    volume: torch.Tensor, coordinates: torch.Tensor, *, mode: str = "bilinear", padding_mode: str = "border"
) -> torch.Tensor:
    """Return the values of a volume at coordinates that are counted in voxels from the center of its first one.

    Args:
        volume: (C, W, H, D), contiguous.
        coordinates: (3, N) float32, along W, H and D.
        mode: ``"bilinear"``, linear between the eight neighbors; or ``"nearest"``, exact for every type of label.
        padding_mode: outside of the volume (more than half a voxel from the last centers) there is its nearest voxel
            (``"border"``) or 0 (``"zeros"``).

    Returns:
        (C, N), of the volume's type; linear interpolation is computed in float32.

    Example:
        >>> ramp = torch.arange(24.0).view(1, 2, 3, 4)  # 12 a step along W, 4 along H, 1 along D
        >>> sample_volume(ramp, torch.tensor([[0.5], [1.0], [2.25]]))
        tensor([[12.2500]])
    """
    size = volume.shape[1:]
    strides = (size[1] * size[2], size[2], 1)
    inside = [place.clamp(0, n - 1) for place, n in zip(coordinates, size, strict=True)]
    channels = volume.view(len(volume), -1)
    if mode == "nearest":
        index = _flat_index([place.round() for place in inside], strides)
        values = channels.index_select(1, index) if len(channels) > 1 else channels[0].index_select(0, index)[None]
    else:
        # The lower neighbor; at the last voxel of an axis the one before it, with a fraction of 1.
        lower = [place.floor().clamp_(max=max(n - 2, 0)) for place, n in zip(inside, size, strict=True)]
        index = _flat_index(lower, strides)
        fractions = [place.sub_(whole) for place, whole in zip(inside, lower, strict=True)]
        steps = [stride if n > 1 else 0 for stride, n in zip(strides, size, strict=True)]
        values = torch.stack([_linear(channel, index, steps, fractions) for channel in channels.float()])
        values = values.to(volume.dtype)
    if padding_mode == "zeros":
        outside = [(place < -0.5) | (place > n - 0.5) for place, n in zip(coordinates, size, strict=True)]
        values.masked_fill_(outside[0] | outside[1] | outside[2], 0)
    return values


def _flat_index(places: Sequence[torch.Tensor], strides: Sequence[int]) -> torch.Tensor:
    """Return the index into the flat volume of whole places along W, H and D (int32 is exact for 2**31 voxels)."""
    w, h, d = (place.int() for place in places)
    return w.mul_(strides[0]).add_(h, alpha=strides[1]).add_(d)


def _linear(
    values: torch.Tensor, index: torch.Tensor, steps: Sequence[int], fractions: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Interpolate along the first axis between what interpolating along the others gives at its two neighbors."""
    if not steps:
        return values.index_select(0, index)
    low = _linear(values, index, steps[1:], fractions[1:])
    high = _linear(values[steps[0] :], index, steps[1:], fractions[1:])
    return low.lerp_(high, fractions[0])
