# SPDX-License-Identifier: Apache-2.0
"""Pyramid pooling (Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017), exact in every export format."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.pyraseg.networks.layers import ConvNormAct, check_batch, is_exporting


def averaging_matrix(size: int, bins: int, like: Tensor) -> Tensor:
    """Return the matrix that averages `size` positions into `bins` overlapping windows.

    Window i covers [floor(i * size / bins), ceil((i + 1) * size / bins)), as `torch.nn.AdaptiveAvgPool2d` has it.

    Args:
        size: number of positions; may be symbolic while a graph is exported.
        bins: number of windows.
        like: tensor whose device and floating type the result takes.

    Returns:
        Tensor of shape (bins, size) whose rows sum to one.
    """
    edges = torch.arange(bins + 1, device=like.device) * size
    start = torch.div(edges[:-1], bins, rounding_mode="floor").unsqueeze(1)
    end = torch.div(edges[1:] + (bins - 1), bins, rounding_mode="floor").unsqueeze(1)
    position = torch.arange(size, device=like.device).unsqueeze(0)
    inside = (position >= start) & (position < end)
    return inside.to(like.dtype) / (end - start).to(like.dtype)


def adaptive_average(features: Tensor, bins: int) -> Tensor:
    """Average a map into `bins` windows along each side: natively, or as matrix products while exporting to a graph.

    Exporters write native adaptive pooling for the traced size alone (or refuse it); the products hold for every size.

    Shapes: (B, C, H, W[, D]) -> (B, C, bins, bins[, bins]).
    """
    if not torch.jit.is_scripting():  # noqa: SIM102 TorchScript leaves out a whole block, not a condition
        if is_exporting():
            return _average_by_products(features, bins)
    if features.dim() == 5:
        return F.adaptive_avg_pool3d(features, [bins, bins, bins])
    return F.adaptive_avg_pool2d(features, [bins, bins])


def _average_by_products(features: Tensor, bins: int) -> Tensor:
    rows = averaging_matrix(features.shape[-2], bins, features)
    columns = averaging_matrix(features.shape[-1], bins, features)
    pooled = rows @ features @ columns.transpose(0, 1)
    if features.dim() == 5:
        planes = averaging_matrix(features.shape[2], bins, features)
        pooled = (planes @ pooled.flatten(3)).unflatten(3, (bins, bins))
    return pooled


class PyramidPooling(nn.Module):
    """Average a map over several grids and project each level; `PyramidBottleneck` mixes them with the map.

    Args:
        in_channels: channels of the map.
        pool_sizes: bins along each side, one entry a level.
        norm: normalisation in MONAI's notation, such as "batch", "instance" or ("group", {"num_groups": 8}).

    Shapes: (B, in_channels, H, W[, D]) -> one (B, width, bins, bins[, bins]) a level, with `width` an attribute.
    """

    def __init__(
        self, in_channels: int, *, pool_sizes: Sequence[int], norm: str | tuple = "batch", spatial_dims: int = 2
    ) -> None:
        super().__init__()
        if not pool_sizes or min(pool_sizes) < 1:
            raise ValueError(f"pool_sizes must hold one or more positive numbers of bins, got {tuple(pool_sizes)}.")
        self.pool_sizes = tuple(pool_sizes)
        self.width = max(1, in_channels // len(self.pool_sizes))
        self.branches = nn.ModuleList(
            ConvNormAct(in_channels, self.width, kernel_size=1, norm=norm, spatial_dims=spatial_dims)
            for _ in self.pool_sizes
        )

    def forward(self, features: Tensor) -> list[Tensor]:
        levels: list[Tensor] = []
        for bins, branch in zip(self.pool_sizes, self.branches):  # noqa: B905 TorchScript knows no strict=
            pooled = adaptive_average(features, bins)
            if not torch.jit.is_scripting():
                check_batch(pooled, branch)
            levels.append(branch(pooled))
        return levels
