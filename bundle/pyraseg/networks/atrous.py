# SPDX-License-Identifier: Apache-2.0
"""Atrous spatial pyramid pooling and the decoder of DeepLabV3+ (Chen et al., "Encoder-Decoder with Atrous Separable
Convolution for Semantic Image Segmentation", ECCV 2018)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bundle.pyraseg.networks.heads import Classifier
from bundle.pyraseg.networks.layers import ConvNormAct, check_batch


class AtrousPyramid(nn.Module):
    """Look at a map at several dilations and as a whole, and mix what was seen.

    Args:
        in_channels: channels of the map.
        out_channels: channels of every branch and of the result.
        rates: dilation of each separable 3x3 convolution.

    Shapes: (B, in_channels, H, W[, D]) -> (B, out_channels, H, W[, D]).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, rates: Sequence[int], norm: str | tuple, spatial_dims: int = 2
    ) -> None:
        super().__init__()
        options = {"norm": norm, "spatial_dims": spatial_dims}
        self.branches = nn.ModuleList([ConvNormAct(in_channels, out_channels, kernel_size=1, **options)])
        self.branches.extend(
            ConvNormAct(in_channels, out_channels, kernel_size=3, dilation=rate, separable=True, **options)
            for rate in rates
        )
        self.pooled = ConvNormAct(in_channels, out_channels, kernel_size=1, **options)
        self.mix = ConvNormAct(out_channels * (len(rates) + 2), out_channels, kernel_size=1, **options)

    def forward(self, features: Tensor) -> Tensor:
        average = features.flatten(2).mean(dim=2).reshape(features.shape[:2] + (1,) * (features.dim() - 2))
        if not torch.jit.is_scripting():
            check_batch(average, self.pooled)
        seen = [branch(features) for branch in self.branches]
        seen.append(self.pooled(average).expand_as(seen[0]))
        return self.mix(torch.cat(seen, dim=1))


class LowLevelHead(nn.Module):
    """Join the upsampled pyramid with a fine map and refine both by separable convolutions.

    Shapes: fine map (B, skip_channels, h, w[, d]) and pyramid (B, in_channels, h, w[, d]) -> (B, out_channels, h, w[,
    d]).
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        *,
        skip_width: int,
        norm: str | tuple,
        dropout: float,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        options = {"norm": norm, "spatial_dims": spatial_dims}
        self.reduce = ConvNormAct(skip_channels, skip_width, kernel_size=1, **options)
        self.refine = nn.Sequential(
            ConvNormAct(in_channels + skip_width, in_channels, kernel_size=3, separable=True, **options),
            ConvNormAct(in_channels, in_channels, kernel_size=3, separable=True, **options),
        )
        self.classifier = Classifier(in_channels, out_channels, dropout=dropout, spatial_dims=spatial_dims)

    def forward(self, skip: Tensor, pyramid: Tensor) -> Tensor:
        return self.classifier(self.refine(torch.cat([pyramid, self.reduce(skip)], dim=1)))
