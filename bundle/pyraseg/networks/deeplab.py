# SPDX-License-Identifier: Apache-2.0
"""DeepLabV3+: an encoder, atrous spatial pyramid pooling and a low-level skip (Chen et al., "Encoder-Decoder with
Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks.heads import Classifier
from bundle.pyraseg.networks.layers import ConvNormAct, check_batch, resize
from bundle.pyraseg.networks.segmentation import SegmentationNetwork

#: Dilations at stride 16 (Chen et al.); other strides see the same share of the image.
RATES_AT_16 = (6, 12, 18)


class DeepLabV3Plus(SegmentationNetwork):
    """DeepLabV3+ with separable convolutions; its parts have the names of PSPNet's.

    Args:
        atrous_rates: dilations of the pyramid's convolutions; None takes 6, 12 and 18 at stride 16, double at 8 and
            half at 32.
        bottleneck: channels of the pyramid and the head.
        skip_width: channels that the encoder's map at stride 4 is reduced to.
        others: as in `PSPNet`.

    Shapes: (B, in_channels, H, W[, D]) of any size -> logits (B, out_channels, H, W[, D]).

    >>> import torch
    >>> network = DeepLabV3Plus(out_channels=3, encoder="resnet18", pretrained=False).eval()
    >>> with torch.no_grad():
    ...     network(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 3, 64, 96])
    """

    def __init__(
        self,
        *,
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int = 2,
        encoder: str = "mobilenetv3_large_100",
        pretrained: bool | str | Path = True,
        output_stride: int = 16,
        depth: int | None = None,
        atrous_rates: Sequence[int] | None = None,
        bottleneck: int = 256,
        skip_width: int = 48,
        auxiliary: bool = False,
        norm: str | tuple = "batch",
        dropout: float = 0.2,
    ) -> None:
        super().__init__(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=out_channels,
            encoder=encoder,
            pretrained=pretrained,
            output_stride=output_stride,
            depth=depth,
            auxiliary=auxiliary,
            norm=norm,
            dropout=dropout,
        )
        channels, strides = self.encoder.channels, self.encoder.strides
        skips = self.skip_indices((4,))
        if not skips:
            raise PyrasegError("DeepLabV3Plus needs a map at stride 4 before the encoder's last. Raise `depth`.")
        self.skip = skips[0]
        rates = atrous_rates or [rate * 16 // strides[-1] for rate in RATES_AT_16]
        options = {"norm": norm, "spatial_dims": spatial_dims}
        self.pyramid = AtrousPyramid(channels[-1], bottleneck, rates=rates, **options)
        self.head = LowLevelHead(
            bottleneck, channels[self.skip], out_channels, skip_width=skip_width, dropout=dropout, **options
        )

    def decode(self, maps: list[Tensor], image: Tensor) -> Tensor:
        """Return logits of the size of the map at stride 4."""
        return self.head(maps[self.skip], resize(self.pyramid(maps[-1]), maps[self.skip]))


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
