# SPDX-License-Identifier: Apache-2.0
"""A residual encoder for volumes, from full resolution on, whose kernels and strides follow the voxels."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import Tensor, nn

from bundle.pyraseg.core import PyrasegError

Axes = tuple[int, int, int]

#: Axes whose voxels are this many times as long as the shortest are neither convolved along nor strided.
THICK = 2.0
#: Voxels that are left of a patch along an axis where it is strided no more, as nnU-Net has it.
LEAST = 4


class Stage(NamedTuple):
    """The kernel of a stage's convolutions, and the stride of its first one."""

    kernel: Axes
    stride: Axes


def plan_stages(spacing: Sequence[float], *, count: int, patch_size: Sequence[int] | None = None) -> list[Stage]:
    """Return kernels and strides that follow the voxels, after the rules of nnU-Net (Isensee et al., 2021).

    An axis along which voxels are at least twice as long as along the finest is left alone, by kernels and by strides,
    until the others have become as coarse. An axis along which a patch would be left with fewer than four voxels is
    strided no more.

    Args:
        spacing: mm along each axis.
        count: number of stages; the first one has no stride.
        patch_size: voxels along each axis; None: of any size.

    >>> [stage.stride for stage in plan_stages([0.8, 0.8, 5.0], count=5)]  # of 5 mm slices
    [(1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2)]
    >>> [stage.kernel for stage in plan_stages([0.8, 0.8, 5.0], count=5)]
    [(3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3)]
    """
    lengths = [float(length) for length in spacing]
    if len(lengths) != 3 or min(lengths) <= 0 or count < 1:
        raise PyrasegError(
            f"Voxels have three lengths above 0 mm and an encoder a stage or more, not {lengths}, {count}."
        )
    sides = [float("inf")] * 3 if patch_size is None else [float(side) for side in patch_size]
    stages = []
    for index in range(count):
        finest = min(lengths)
        fine = [length < THICK * finest for length in lengths]
        stride = tuple(
            2 if index and is_fine and side >= 2 * LEAST else 1 for is_fine, side in zip(fine, sides, strict=True)
        )
        lengths = [length * step for length, step in zip(lengths, stride, strict=True)]
        sides = [side / step for side, step in zip(sides, stride, strict=True)]
        near = [length < THICK * min(lengths) for length in lengths]
        stages.append(Stage(tuple(3 if is_near else 1 for is_near in near), stride))  # pyrefly: ignore # three axes
    return stages


class ResidualVolumeEncoder(nn.Module):
    """Stages of MONAI's residual blocks; the first one is at full resolution.

    Args:
        in_channels: channels of the input.
        channels: of each stage's map.
        stages: kernel and stride of each, see `plan_stages`.
        norm: normalization in MONAI's notation.

    Shapes: (B, in_channels, W, H, D), sides multiples of the last of `strides` -> one map a stage, from fine to coarse.
    """

    def __init__(
        self, in_channels: int, *, channels: Sequence[int], stages: Sequence[Stage], norm: str | tuple
    ) -> None:
        super().__init__()
        self.channels = list(channels)
        steps = accumulate((stage.stride for stage in stages), lambda a, b: tuple(map(int.__mul__, a, b)))
        self.strides: list[Axes] = list(steps)  # pyrefly: ignore # three axes each
        blocks = zip([in_channels, *channels], channels, stages)  # noqa: B905 the last width begins no block
        self.stages = nn.ModuleList(
            UnetResBlock(3, before, width, kernel_size=stage.kernel, stride=stage.stride, norm_name=norm)
            for before, width, stage in blocks
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        x = image
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
