# SPDX-License-Identifier: Apache-2.0
"""PSPNet: an encoder, pyramid pooling and a light head."""

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.networks.encoders import build_encoder
from bundle.pyraseg.networks.heads import PlainHead, SkipHead
from bundle.pyraseg.networks.parts import PartwiseNetwork
from bundle.pyraseg.networks.pyramid import PyramidPooling

#: Strides of the maps that the skips of `decoder="fpn"` reach, from coarse to fine.
SKIP_STRIDES = (8, 4)


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
        decoder: "plain" classifies the pooled map, as the original does; "fpn" carries it down to stride 4 first,
            through light lateral connections to the encoder's finer maps, and so follows boundaries.
        bottleneck: channels between pyramid and classifier.
        norm: normalisation in pyramid and head, in MONAI's notation.
        dropout: share of the bottleneck's channels dropped in training.

    Shapes: (B, in_channels, H, W) of any H and W -> logits (B, out_channels, H, W).
    """

    skips: list[int]  # declared for TorchScript, which cannot tell the type of an empty list

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
        decoder: str = "plain",
        bottleneck: int = 512,
        norm: str | tuple = "batch",
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if spatial_dims != 2:
            raise PyrasegError(f"PSPNet works on 2-D slices: spatial_dims must be 2, got {spatial_dims}.")
        if decoder not in ("plain", "fpn"):
            raise PyrasegError(f"PSPNet has the decoders 'plain' and 'fpn', not {decoder!r}.")
        self.dropout = dropout  # MONAI Label switches on uncertainty scoring by this attribute
        self.encoder = build_encoder(
            encoder, in_channels=in_channels, pretrained=pretrained, output_stride=output_stride
        )
        channels, strides = self.encoder.feature_info.channels(), self.encoder.feature_info.reduction()
        self.pyramid = PyramidPooling(channels[-1], pool_sizes=pool_sizes, norm=norm)
        options = {"bottleneck": bottleneck, "norm": norm, "dropout": dropout}
        if decoder == "plain":
            self.skips = []
            self.head = PlainHead(self.pyramid.out_channels, out_channels, **options)
        else:
            finer = {stride: index for index, stride in enumerate(strides[:-1])}  # the deepest map of each stride
            self.skips = [finer[stride] for stride in SKIP_STRIDES if stride in finer]
            skip_channels = [channels[index] for index in self.skips]
            self.head = SkipHead(self.pyramid.out_channels, out_channels, skip_channels=skip_channels, **options)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image)
        features = self.encoder(padded)
        logits = self.head(self.pyramid(features[-1]), [features[index] for index in self.skips])
        logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def pad_to_multiple(image: Tensor, multiple: int = 32) -> Tensor:
    """Repeat the last row and column of a BCHW image until both sides are multiples of `multiple`.

    Strided convolutions with TensorFlow's padding (timm's `tf_` encoders) pad one side or both, depending on whether a
    side is odd. Where training and use differ in that, every level adds half a pixel of its own to a shift of the
    result: 2 to 3 pixels at 137 x 140, measured on a network that was trained at 160 x 160. On multiples of the
    coarsest stride all sizes are alike, and maps grow back by whole factors.
    """
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
