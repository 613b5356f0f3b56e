# SPDX-License-Identifier: Apache-2.0
"""From pooled features to class scores: the plain head of PSPNet, and one that follows the edges of finer maps."""

from collections.abc import Sequence

import torch.nn.functional as F
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from torch import Tensor, nn


class ConvNormAct(nn.Sequential):
    """Convolution without bias, normalisation, ReLU; `separable` makes it a depthwise and a pointwise convolution."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int, norm: str | tuple, separable: bool = False
    ) -> None:
        pointwise = 1 if separable else kernel_size
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, pointwise, padding=pointwise // 2, bias=False),
            get_norm_layer(norm, spatial_dims=2, channels=out_channels),
            get_act_layer(("relu", {"inplace": True})),
        ]
        if separable:
            padding = kernel_size // 2
            depthwise = nn.Conv2d(
                in_channels, in_channels, kernel_size, padding=padding, groups=in_channels, bias=False
            )
            layers.insert(0, depthwise)
        super().__init__(*layers)


class PlainHead(nn.Module):
    """Mix the pyramid's levels by a 3x3 convolution and classify every position of the coarse map.

    Shapes: pyramid (B, in_channels, h, w) -> logits (B, out_channels, h, w); the finer maps are not used.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, bottleneck: int, norm: str | tuple, dropout: float
    ) -> None:
        super().__init__()
        self.bottleneck = ConvNormAct(in_channels, bottleneck, kernel_size=3, norm=norm)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(bottleneck, out_channels, kernel_size=1)

    def forward(self, pyramid: Tensor, skips: list[Tensor]) -> Tensor:
        return self.classifier(self.dropout(self.bottleneck(pyramid)))


class SkipHead(nn.Module):
    """Carry the mixed pyramid down to finer maps, adding each through a lateral connection, and classify there.

    The top-down path of feature pyramid networks (Lin et al., CVPR 2017) behind pyramid pooling, as UPerNet has it
    (Xiao et al., ECCV 2018), with separable convolutions.

    Args:
        in_channels: channels of the pyramid.
        skip_channels: channels of the finer maps, from coarse to fine.

    Shapes: pyramid (B, in_channels, h, w) and skips from coarse to fine -> logits of the finest skip's size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        skip_channels: Sequence[int],
        bottleneck: int,
        norm: str | tuple,
        dropout: float,
    ) -> None:
        super().__init__()
        self.bottleneck = ConvNormAct(in_channels, bottleneck, kernel_size=3, norm=norm)
        self.laterals = nn.ModuleList(ConvNormAct(c, bottleneck, kernel_size=1, norm=norm) for c in skip_channels)
        self.fusions = nn.ModuleList(
            ConvNormAct(bottleneck, bottleneck, kernel_size=3, norm=norm, separable=True) for _ in skip_channels
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(bottleneck, out_channels, kernel_size=1)

    def forward(self, pyramid: Tensor, skips: list[Tensor]) -> Tensor:
        x = self.bottleneck(pyramid)
        for index, (lateral, fusion) in enumerate(zip(self.laterals, self.fusions)):  # noqa: B905 TorchScript has no strict=
            skip = skips[index]
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = fusion(x + lateral(skip))
        return self.classifier(self.dropout(x))
