# SPDX-License-Identifier: Apache-2.0
"""Pyramid pooling (Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017), exact in every export format."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.pyraseg.networks.heads import ConvNormAct


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
    """Average a BCHW map into bins x bins windows: natively, or as two matrix products while exporting to a graph.

    Exporters write native adaptive pooling for the traced size alone (or refuse it); the products hold for every size.
    """
    if torch.jit.is_scripting():
        return F.adaptive_avg_pool2d(features, [bins, bins])
    if torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting():
        rows = averaging_matrix(features.shape[-2], bins, features)
        columns = averaging_matrix(features.shape[-1], bins, features)
        return rows @ features @ columns.transpose(0, 1)
    return F.adaptive_avg_pool2d(features, [bins, bins])


class PyramidPooling(nn.Module):
    """Append to a map its averages over several grids, projected and upsampled to its size.

    Args:
        in_channels: channels of the map.
        pool_sizes: bins along each side, one entry a level.
        norm: normalisation in MONAI's notation, such as "batch", "instance" or ("group", {"num_groups": 8}).

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H, W), with `out_channels` an attribute.
    """

    def __init__(self, in_channels: int, *, pool_sizes: Sequence[int], norm: str | tuple = "batch") -> None:
        super().__init__()
        if not pool_sizes or min(pool_sizes) < 1:
            raise ValueError(f"pool_sizes must hold one or more positive numbers of bins, got {tuple(pool_sizes)}.")
        self.pool_sizes = tuple(pool_sizes)
        width = max(1, in_channels // len(self.pool_sizes))
        self.branches = nn.ModuleList(
            ConvNormAct(in_channels, width, kernel_size=1, norm=norm) for _ in self.pool_sizes
        )
        self.out_channels = in_channels + width * len(self.pool_sizes)

    def forward(self, features: Tensor) -> Tensor:
        size = features.shape[-2:]
        levels = [features]
        for bins, branch in zip(self.pool_sizes, self.branches):  # noqa: B905 TorchScript knows no strict=
            pooled = branch(adaptive_average(features, bins))
            levels.append(F.interpolate(pooled, size=size, mode="bilinear", align_corners=False))
        return torch.cat(levels, dim=1)
