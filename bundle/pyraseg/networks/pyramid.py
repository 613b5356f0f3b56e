# SPDX-License-Identifier: Apache-2.0
"""Pyramid pooling (Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017), exact in every export format."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.pyraseg.networks.layers import (
    ConvNormAct,
    averaging_matrix,
    check_batch,
    is_exporting,
    multiply_along,
    numbered,
)


def adaptive_averages(features: Tensor, bins: list[int]) -> list[Tensor]:
    """Average a map over several grids: natively, or as matrix products while exporting to a graph.

    Exporters write native adaptive pooling for the traced size alone (or refuse it); the products hold for every size.

    Shapes: (B, C, H, W[, D]) -> one (B, C, k, k[, k]) for each k in `bins`.
    """
    if not torch.jit.is_scripting():  # noqa: SIM102 TorchScript leaves out a whole block, not a condition
        if is_exporting():
            return _averages_by_products(features, bins)
    if features.dim() == 5:
        return [F.adaptive_avg_pool3d(features, [count, count, count]) for count in bins]  # pyrefly: ignore # TorchScript
    return [F.adaptive_avg_pool2d(features, [count, count]) for count in bins]  # pyrefly: ignore # TorchScript


def _averages_by_products(features: Tensor, bins: list[int]) -> list[Tensor]:
    """Average along each axis over the windows of all grids at once; a grid is a block of the result."""
    number, count = numbered(bins, features)
    pooled = features
    for axis in range(2, features.dim()):
        matrix = averaging_matrix(features.shape[axis], number, count, features)
        pooled = multiply_along(axis, matrix, pooled)
    grids: list[Tensor] = []
    first = 0
    for size in bins:
        grid = pooled
        for axis in range(2, features.dim()):
            grid = grid.narrow(axis, first, size)
        grids.append(grid)
        first += size
    return grids


class PyramidPooling(nn.Module):
    """Average a map over several grids and project each level; `PyramidBottleneck` mixes them with the map.

    Args:
        in_channels: channels of the map.
        pool_sizes: bins along each side, one entry a level.
        norm: normalization in MONAI's notation, such as "batch", "instance" or ("group", {"num_groups": 8}).

    Shapes: (B, in_channels, H, W[, D]) -> one (B, width, bins, bins[, bins]) a level, with `width` an attribute.
    """

    def __init__(
        self, in_channels: int, *, pool_sizes: Sequence[int], norm: str | tuple = "batch", spatial_dims: int = 2
    ) -> None:
        super().__init__()
        if not pool_sizes or min(pool_sizes) < 1:
            raise ValueError(f"pool_sizes must hold one or more positive numbers of bins, got {tuple(pool_sizes)}.")
        self.pool_sizes = list(pool_sizes)
        self.width = max(1, in_channels // len(self.pool_sizes))
        self.branches = nn.ModuleList(
            ConvNormAct(in_channels, self.width, kernel_size=1, norm=norm, spatial_dims=spatial_dims)
            for _ in self.pool_sizes
        )

    def forward(self, features: Tensor) -> list[Tensor]:
        levels: list[Tensor] = []
        averages = adaptive_averages(features, self.pool_sizes)
        for index, branch in enumerate(self.branches):
            pooled = averages[index]
            if not torch.jit.is_scripting():
                check_batch(pooled, branch)  # pyrefly: ignore # a ModuleList tells no type
            levels.append(branch(pooled))
        return levels
