# SPDX-License-Identifier: Apache-2.0
"""From pooled features to class scores: the plain head of PSPNet, one that follows the edges of finer maps, and a
small one that helps an encoder to learn."""

from collections.abc import Sequence

from monai.networks.layers.factories import Conv, Dropout
from torch import Tensor, nn

from bundle.pyraseg.networks.bottleneck import PyramidBottleneck
from bundle.pyraseg.networks.layers import ConvNormAct, resize


class Classifier(nn.Sequential):
    """Dropout of whole channels, then a 1x1 convolution to class scores."""

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float, spatial_dims: int = 2) -> None:
        super().__init__(
            Dropout[Dropout.DROPOUT, spatial_dims](dropout),
            Conv[Conv.CONV, spatial_dims](in_channels, out_channels, kernel_size=1),
        )


class PlainHead(nn.Module):
    """Mix the pyramid's levels by a convolution of width 3 and classify every position of the coarse map.

    Shapes: map (B, in_channels, h, w[, d]), its pyramid levels, and finer maps, which are not used -> logits
    (B, out_channels, h, w[, d]).
    """

    def __init__(
        self,
        in_channels: int,
        level_channels: int,
        out_channels: int,
        *,
        bottleneck: int,
        norm: str | tuple,
        dropout: float,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        self.bottleneck = PyramidBottleneck(
            in_channels, level_channels, bottleneck, norm=norm, spatial_dims=spatial_dims
        )
        self.classifier = Classifier(bottleneck, out_channels, dropout=dropout, spatial_dims=spatial_dims)

    def forward(self, features: Tensor, levels: list[Tensor], skips: list[Tensor]) -> Tensor:
        return self.classifier(self.bottleneck(features, levels))


class SkipHead(nn.Module):
    """Carry the mixed pyramid down to finer maps, adding each through a lateral connection, and classify there.

    The top-down path of feature pyramid networks (Lin et al., CVPR 2017) behind pyramid pooling, as UPerNet has it
    (Xiao et al., ECCV 2018), with separable convolutions.

    Args:
        in_channels: channels of the map that was pooled.
        level_channels: channels of its pyramid levels together.
        skip_channels: channels of the finer maps, from coarse to fine.

    Shapes: map (B, in_channels, h, w[, d]), its levels, and skips from coarse to fine -> logits of the finest's size.
    """

    def __init__(
        self,
        in_channels: int,
        level_channels: int,
        out_channels: int,
        *,
        skip_channels: Sequence[int],
        bottleneck: int,
        norm: str | tuple,
        dropout: float,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        options = {"norm": norm, "spatial_dims": spatial_dims}
        self.bottleneck = PyramidBottleneck(in_channels, level_channels, bottleneck, **options)
        self.laterals = nn.ModuleList(ConvNormAct(c, bottleneck, kernel_size=1, **options) for c in skip_channels)
        self.fusions = nn.ModuleList(
            ConvNormAct(bottleneck, bottleneck, kernel_size=3, separable=True, **options) for _ in skip_channels
        )
        self.classifier = Classifier(bottleneck, out_channels, dropout=dropout, spatial_dims=spatial_dims)

    def forward(self, features: Tensor, levels: list[Tensor], skips: list[Tensor]) -> Tensor:
        x = self.bottleneck(features, levels)
        for index, (lateral, fusion) in enumerate(zip(self.laterals, self.fusions)):  # noqa: B905 TorchScript has no strict=
            skip = skips[index]
            x = fusion(resize(x, skip) + lateral(skip))
        return self.classifier(x)


class AuxiliaryHead(nn.Sequential):
    """Classify an earlier map of the encoder, for a second loss in training (Zhao et al., CVPR 2017, section 3.3)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, norm: str | tuple, dropout: float, spatial_dims: int = 2
    ) -> None:
        width = max(1, in_channels // 4)
        super().__init__(
            ConvNormAct(in_channels, width, kernel_size=3, norm=norm, spatial_dims=spatial_dims),
            Classifier(width, out_channels, dropout=dropout, spatial_dims=spatial_dims),
        )
