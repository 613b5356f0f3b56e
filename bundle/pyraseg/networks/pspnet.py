# SPDX-License-Identifier: Apache-2.0
"""PSPNet: an encoder, pyramid pooling and a light head."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks.heads import PlainHead, SkipHead
from bundle.pyraseg.networks.pyramid import PyramidPooling
from bundle.pyraseg.networks.segmentation import SegmentationNetwork

#: Strides of the maps that the skips of `decoder="fpn"` may reach, from coarse to fine.
SKIP_STRIDES = (16, 8, 4)


class PSPNet(SegmentationNetwork):
    """Pyramid scene parsing network; its parts are `encoder`, `pyramid`, `head` and, if wanted, `auxiliary`.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: classes, background included.
        encoder: timm's name of the encoder; in 3-D "efficientnet_b0" or "resnet50".
        pretrained: False, True, or the path of a weights file (see `build_encoder`).
        output_stride: input pixels to one pixel of the map that the pyramid pools: 8, 16 or 32.
        patch_stem: whether one convolution takes the place of the encoder's layers above stride 4, see `build_encoder`.
        depth: stages of the encoder to keep; 2 stops at stride 8, as the fastest networks of this name do, and loses
            what the deeper stages know. None keeps all.
        pool_sizes: bins along each side, one entry a level of the pyramid.
        decoder: "plain" classifies the pooled map, as the original does; "fpn" carries it down to `decoder_stride`
            first, through light lateral connections to the encoder's finer maps, and so follows boundaries.
        decoder_stride: stride of the finest map that "fpn" goes down to: 4, or 8 or 16 for a faster network, or 2 or 1
            for structures of a few pixels, with convolutions of its own on the image.
        bottleneck: channels between pyramid and classifier. (The paper has 512, which most of the time goes into.)
        auxiliary: whether the encoder's last but one map has a head of its own; the network then returns
            [logits, auxiliary logits] in training mode, which `monai.losses.DeepSupervisionLoss` weights.
        norm: normalization in pyramid and heads, in MONAI's notation.
        dropout: share of the bottleneck's channels dropped in training.

    Shapes: (B, in_channels, H, W[, D]) of any size -> logits (B, out_channels, H, W[, D]).

    >>> import torch
    >>> network = PSPNet(in_channels=9, out_channels=5, pretrained=False, decoder="fpn").eval()
    >>> network.part_names()
    ['encoder', 'pyramid', 'head']
    >>> with torch.no_grad():
    ...     network(torch.zeros(1, 9, 70, 50)).shape
    torch.Size([1, 5, 70, 50])
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
        depth: int | None = None,
        patch_stem: bool = False,
        pool_sizes: Sequence[int] = (1, 3, 5, 7),
        decoder: str = "plain",
        decoder_stride: int = SKIP_STRIDES[-1],
        bottleneck: int = 128,
        auxiliary: bool = False,
        norm: str | tuple = "batch",
        dropout: float = 0.2,
    ) -> None:
        if decoder not in ("plain", "fpn"):
            raise PyrasegError(f"PSPNet has the decoders 'plain' and 'fpn', not {decoder!r}.")
        if decoder_stride not in (*SKIP_STRIDES, 2, 1):
            raise PyrasegError(f"`decoder_stride` is 1, 2, 4, 8 or 16, not {decoder_stride}.")
        super().__init__(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=out_channels,
            encoder=encoder,
            pretrained=pretrained,
            output_stride=output_stride,
            depth=depth,
            patch_stem=patch_stem,
            auxiliary=auxiliary,
            norm=norm,
            dropout=dropout,
        )
        channels = self.encoder.channels
        self.pyramid = PyramidPooling(channels[-1], pool_sizes=pool_sizes, norm=norm, spatial_dims=spatial_dims)
        sizes = (channels[-1], self.pyramid.width * len(self.pyramid.pool_sizes), out_channels)
        options = {"bottleneck": bottleneck, "norm": norm, "dropout": dropout, "spatial_dims": spatial_dims}
        reached = [stride for stride in SKIP_STRIDES if stride >= decoder_stride]
        self.skips = self.skip_indices(reached) if decoder == "fpn" else []
        if decoder == "fpn":
            refined = {"image_channels": in_channels, "refinements": {2: 1, 1: 2}.get(decoder_stride, 0)}
            self.head = SkipHead(*sizes, skip_channels=[channels[index] for index in self.skips], **options, **refined)
        else:
            self.head = PlainHead(*sizes, **options)

    def decode(self, maps: list[Tensor], image: Tensor) -> Tensor:
        """Return logits of the deepest map's size, or of the finest that the decoder goes down to."""
        return self.head(maps[-1], self.pyramid(maps[-1]), [maps[index] for index in self.skips], image)
