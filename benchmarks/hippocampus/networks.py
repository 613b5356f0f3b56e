# SPDX-License-Identifier: Apache-2.0
"""MONAI's 3-D networks under the part names of ours, so that one plan of stages and one config trains all of them."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch.nn.functional as F
from monai.networks.nets import DynUNet, SegResNet
from torch import Tensor, nn

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks import PartwiseNetwork


class PeerNetwork(PartwiseNetwork):
    """A network that halves its maps some times, for volumes of any size.

    Args:
        multiple: of the sides that it takes; others are padded, and the logits cut back.

    Shapes: (B, C, W, H, D) -> logits (B, K, W, H, D); in training mode a network with deep supervision returns a list
    of logits, from fine to coarse.
    """

    def __init__(self, multiple: int) -> None:
        super().__init__()
        self.multiple = multiple

    def logits(self, image: Tensor) -> list[Tensor]:
        """Return the logits of an image of whole multiples, from fine to coarse."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        missing = [-size % self.multiple for size in image.shape[2:]]
        padded = F.pad(image, [amount for size in reversed(missing) for amount in (0, size)], mode="replicate")
        logits = self.logits(padded)
        if self.training and len(logits) > 1:
            if any(missing):
                raise PyrasegError(
                    f"A patch of {tuple(image.shape[2:])} voxels has sides that are no multiples of {self.multiple}, "
                    "which deep supervision needs: change `patch_size`."
                )
            return logits
        width, height, depth = image.shape[2:]
        return logits[0][..., :width, :height, :depth]


class DynUNetPeer(PeerNetwork):
    """MONAI's DynUNet with residual blocks and deep supervision; filters are nnU-Net's.

    Its contracting path and bottleneck are the part `encoder`, its expanding path `pyramid`, its classifiers `head`.

    Args:
        in_channels: channels of the image.
        out_channels: classes, background included.
        strides: of every level, the first one 1; as nnU-Net plans them.
        kernel_size: of every level; 3 if left out.
        options: further arguments of DynUNet.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        strides: Sequence[Sequence[int]] = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
        kernel_size: Sequence[Sequence[int]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(max(prod(of_axis) for of_axis in zip(*strides, strict=True)))
        network = DynUNet(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size or [[3, 3, 3]] * len(strides),
            strides=strides,
            upsample_kernel_size=strides[1:],
            deep_supervision=True,
            deep_supr_num=len(strides) - 2,
            res_block=True,
            **options,
        )
        self.encoder = nn.ModuleList([network.input_block, *network.downsamples, network.bottleneck])
        self.pyramid = network.upsamples
        self.head = nn.ModuleList([network.output_block, *network.deep_supervision_heads])

    def logits(self, image: Tensor) -> list[Tensor]:
        maps = [image]
        for block in self.encoder:
            maps.append(block(maps[-1]))
        levels = [maps[-1]]
        for block, skip in zip(self.pyramid, maps[-2:0:-1], strict=True):
            levels.append(block(levels[-1], skip))
        heads = self.head if self.training else self.head[:1]
        return [head(level) for head, level in zip(heads, reversed(levels), strict=False)]  # the coarsest have none


class SegResNetPeer(PeerNetwork):
    """MONAI's SegResNet, of 16 filters and a dropout of 0.2 as in MONAI's BraTS bundle unless others are given.

    Its contracting path is the part `encoder`, its expanding path `pyramid`, its classifier `head`.

    Args:
        in_channels: channels of the image.
        out_channels: classes, background included.
        options: further arguments of SegResNet.
    """

    def __init__(self, *, in_channels: int, out_channels: int, **options: Any) -> None:
        options = {"init_filters": 16, "dropout_prob": 0.2, **options}
        network = SegResNet(spatial_dims=3, in_channels=in_channels, out_channels=out_channels, **options)
        super().__init__(2 ** (len(network.blocks_down) - 1))
        self.encoder = nn.ModuleList([nn.Sequential(network.convInit, network.dropout), *network.down_layers])
        self.pyramid = nn.ModuleList([*network.up_samples, *network.up_layers])
        self.head = network.conv_final

    def logits(self, image: Tensor) -> list[Tensor]:
        maps = [self.encoder[0](image)]
        for block in self.encoder[1:]:
            maps.append(block(maps[-1]))
        half = len(self.pyramid) // 2
        features = maps[-1]
        for enlarge, block, skip in zip(self.pyramid[:half], self.pyramid[half:], maps[-2:0:-1], strict=True):
            features = block(enlarge(features) + skip)
        return [self.head(features)]
