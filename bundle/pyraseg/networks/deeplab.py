# SPDX-License-Identifier: Apache-2.0
"""DeepLabV3+: an encoder, atrous spatial pyramid pooling and a low-level skip."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks.atrous import AtrousPyramid, LowLevelHead
from bundle.pyraseg.networks.layers import resize
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

    def decode(self, maps: list[Tensor]) -> Tensor:
        """Return logits of the size of the map at stride 4."""
        return self.head(maps[self.skip], resize(self.pyramid(maps[-1]), maps[self.skip]))
