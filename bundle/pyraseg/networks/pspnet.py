# SPDX-License-Identifier: Apache-2.0
"""PSPNet: an encoder, pyramid pooling and a light head."""

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from torch import Tensor, nn

from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.networks.encoders import build_encoder
from bundle.pyraseg.networks.parts import PartwiseNetwork
from bundle.pyraseg.networks.pyramid import PyramidPooling


class SegmentationHead(nn.Sequential):
    """Mix the pyramid's levels and classify every position: 3x3 convolution, norm, ReLU, dropout, 1x1 convolution."""

    def __init__(
        self, in_channels: int, out_channels: int, *, bottleneck: int, norm: str | tuple, dropout: float
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, bottleneck, kernel_size=3, padding=1, bias=False),
            get_norm_layer(norm, spatial_dims=2, channels=bottleneck),
            get_act_layer(("relu", {"inplace": True})),
            nn.Dropout2d(dropout),
            nn.Conv2d(bottleneck, out_channels, kernel_size=1),
        )


class PSPNet(PartwiseNetwork):
    """Pyramid scene parsing network with an encoder of timm; its parts are `encoder`, `pyramid` and `head`.

    Args:
        spatial_dims: 2.
        in_channels: channels of the input.
        out_channels: classes, background included.
        encoder: timm's name of the encoder.
        pretrained: False, True, or the path of a weights file (see `build_encoder`).
        output_stride: input pixels to one pixel of the map that the pyramid pools: 8, 16 or 32.
        pool_sizes: bins along each side, one entry a level of the pyramid.
        bottleneck: channels between pyramid and classifier.
        norm: normalisation in pyramid and head, in MONAI's notation.
        dropout: share of the bottleneck's channels dropped in training.

    Shapes: (B, in_channels, H, W) of any H and W -> logits (B, out_channels, H, W).
    """

    def __init__(
        self,
        *,
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int = 2,
        encoder: str = "tf_efficientnet_lite0",
        pretrained: bool | str | Path = True,
        output_stride: int = 16,
        pool_sizes: Sequence[int] = (1, 3, 5, 7),
        bottleneck: int = 512,
        norm: str | tuple = "batch",
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if spatial_dims != 2:
            raise PyrasegError(f"PSPNet works on 2-D slices: spatial_dims must be 2, got {spatial_dims}.")
        self.dropout = dropout  # MONAI Label switches on uncertainty scoring by this attribute
        self.encoder = build_encoder(
            encoder, in_channels=in_channels, pretrained=pretrained, output_stride=output_stride
        )
        self.pyramid = PyramidPooling(self.encoder.feature_info.channels()[-1], pool_sizes=pool_sizes, norm=norm)
        self.head = SegmentationHead(
            self.pyramid.out_channels, out_channels, bottleneck=bottleneck, norm=norm, dropout=dropout
        )

    def forward(self, image: Tensor) -> Tensor:
        logits = self.head(self.pyramid(self.encoder(image)[-1]))
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
