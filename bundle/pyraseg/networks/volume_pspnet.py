# SPDX-License-Identifier: Apache-2.0
"""PSPNet for volumes: pyramid pooling in three dimensions, and skips down to full resolution."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks.encoders import build_encoder
from bundle.pyraseg.networks.heads import Classifier, PyramidBottleneck
from bundle.pyraseg.networks.layers import ConvNormAct, DetailMaps, enlarge, pad_to_multiple, resize
from bundle.pyraseg.networks.pyramid import PyramidPooling
from bundle.pyraseg.networks.segmentation import PartwiseNetwork
from bundle.pyraseg.networks.volume_encoders import ResidualVolumeEncoder, plan_stages

#: The encoder from scratch, like nnU-Net's residual one; the others are those of `build_encoder`.
RESIDUAL = "residual"


class VolumePSPNet(PartwiseNetwork):
    """Pyramid scene parsing network for volumes; its parts are `encoder`, `pyramid` and `head`, and `detail` where the
    encoder begins below full resolution.

    Args:
        in_channels: channels of the input.
        out_channels: classes, background included.
        encoder: "residual", from scratch, or one of `build_encoder` for 3-D, such as "resnet50", which takes
            MedicalNet's weights.
        pretrained: False, or the path of a weights file for an encoder that takes one.
        spacing: mm along the axes W, H and D of what the network sees: kernels and strides follow it.
        patch_size: voxels along the axes of a patch; no stage leaves fewer than four of them.
        channels: of each stage of the residual encoder.
        pool_sizes: bins along each side, one entry a level of the pyramid.
        norm: normalization in MONAI's notation; the pyramid, with few bins a level, has a group norm of one group.
        dropout: share of the channels in front of the classifier that are dropped in training.
        deep_supervision: how many of the finest maps, at most, have logits in training; 1 is the result alone.

    Shapes: (B, in_channels, W, H, D) of any size -> logits (B, out_channels, W, H, D). In training mode, with deep
    supervision, a list of logits, the finest first, each of the size of its map; sides are whole multiples of the
    coarsest stride then.

    Raises:
        PyrasegError: an encoder, weights or a number of maps that there are not; or, in training with deep supervision,
            a patch whose sides are no multiples.

    >>> network = VolumePSPNet(in_channels=1, out_channels=3, spacing=[1, 1, 3], channels=[4, 8, 16]).eval()
    >>> network.part_names()
    ['encoder', 'pyramid', 'head']
    >>> with torch.no_grad():
    ...     network(torch.zeros(1, 1, 21, 18, 7)).shape
    torch.Size([1, 3, 21, 18, 7])
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        encoder: str = RESIDUAL,
        pretrained: bool | str | Path = False,
        spacing: Sequence[float] = (1, 1, 1),
        patch_size: Sequence[int] | None = None,
        channels: Sequence[int] = (16, 32, 64, 128),
        pool_sizes: Sequence[int] = (1, 2, 3),
        norm: str | tuple = ("instance", {"affine": True}),
        dropout: float = 0.0,
        deep_supervision: int = 3,
    ) -> None:
        super().__init__()
        self.dropout = dropout  # MONAI Label switches on uncertainty scoring by this attribute
        self.detail: DetailMaps | None = None
        self.encoder: nn.Module
        if encoder == RESIDUAL:
            if pretrained:
                raise PyrasegError("The encoder 'residual' starts from scratch. Set `pretrained` to false.")
            stages = plan_stages(spacing, count=len(channels), patch_size=patch_size)
            self.encoder = ResidualVolumeEncoder(in_channels, channels=channels, stages=stages, norm=norm)
            widths, kernels = list(channels), [stage.kernel for stage in stages]
            self.multiples = list(self.encoder.strides[-1])
            self.used = list(range(len(widths)))
        else:
            self.encoder = build_encoder(encoder, spatial_dims=3, in_channels=in_channels, pretrained=pretrained)
            self.detail = DetailMaps(in_channels, norm=norm, spatial_dims=3)
            strides = self.encoder.strides
            self.used = [index for index, stride in enumerate(strides) if stride not in strides[index + 1 :]]
            widths = [*self.detail.channels, *(self.encoder.channels[index] for index in self.used)]
            kernels = [(3, 3, 3)] * len(widths)
            self.multiples = [strides[-1]] * 3
        # A level of one bin has no statistics of its own for an instance norm.
        whole = ("group", {"num_groups": 1})
        self.pyramid = PyramidPooling(widths[-1], pool_sizes=pool_sizes, norm=whole, spatial_dims=3)
        pooled = self.pyramid.width * len(self.pyramid.pool_sizes)
        options = {"norm": norm, "dropout": dropout, "supervised": deep_supervision}
        self.head = VolumeHead(widths, pooled, out_channels, kernels=kernels, **options)

    def forward(self, image: Tensor) -> Tensor:  # or a list in training; TorchScript, which reads this, knows one type
        padded = pad_to_multiple(image, self.multiples)
        found = self.encoder(padded)
        maps = [found[index] for index in self.used]
        if self.detail is not None:
            maps = self.detail(padded) + maps
        levels = self.pyramid(maps[-1])
        if not torch.jit.is_scripting():  # noqa: SIM102 TorchScript leaves out a whole block, not a condition
            if self.training:
                finest, *others = self.head.supervised(maps, levels)
                if others and padded.shape != image.shape:  # their voxels would not lie on those of a label
                    raise PyrasegError(
                        f"A patch of {tuple(image.shape[2:])} voxels has sides that are no multiples of "
                        f"{tuple(self.multiples)}, which deep supervision needs. Change patch_size."
                    )
                logits = enlarge(finest, padded, image)
                return [logits, *others] if others else logits  # pyrefly: ignore # see above
        return enlarge(self.head(maps, levels), padded, image)


class VolumeHead(nn.Module):
    """Mix the pyramid's levels, go up to the finest map, adding each finer one on the way, and classify there.

    Each step narrows to the channels of the finer map before it enlarges: most of the work is at full resolution.

    Args:
        channels: of the maps, from fine to coarse.
        level_channels: of the pyramid's levels together.
        out_channels: classes.
        kernels: of the convolution at each map.
        supervised: how many of the finest maps have a classifier.

    Shapes: maps (B, C_k, w_k, h_k, d_k) from fine to coarse and the levels -> logits of the finest map's size.
    """

    def __init__(
        self,
        channels: Sequence[int],
        level_channels: int,
        out_channels: int,
        *,
        kernels: Sequence[Sequence[int]],
        norm: str | tuple,
        dropout: float,
        supervised: int,
    ) -> None:
        super().__init__()
        finer = list(channels[:-1])
        if supervised < 1 or not finer:
            raise PyrasegError(
                f"`deep_supervision` counts maps from 1 on, and an encoder has two stages or more; they are "
                f"{supervised} and {len(channels)}."
            )
        self.bottleneck = PyramidBottleneck(channels[-1], level_channels, channels[-1], norm=norm, spatial_dims=3)
        pairs = list(pairwise(reversed(channels)))
        self.narrow = nn.ModuleList(Conv[Conv.CONV, 3](coarse, fine, kernel_size=1) for coarse, fine in pairs)
        self.fusions = nn.ModuleList(
            ConvNormAct(width, width, kernel_size=kernel, norm=norm, spatial_dims=3)
            for width, kernel in zip(finer[::-1], kernels[-2::-1], strict=True)
        )
        self.classifier = Classifier(finer[0], out_channels, dropout=dropout, spatial_dims=3)
        self.others = nn.ModuleList(
            Classifier(width, out_channels, dropout=dropout, spatial_dims=3) for width in finer[1:supervised]
        )

    def forward(self, maps: list[Tensor], levels: list[Tensor]) -> Tensor:
        return self.classifier(self.decode(maps, levels)[-1])

    def supervised(self, maps: list[Tensor], levels: list[Tensor]) -> list[Tensor]:
        """Return the logits of the maps that have a classifier, the finest first."""
        decoded = self.decode(maps, levels)[::-1]
        classifiers = [self.classifier, *self.others]
        return [classify(x) for classify, x in zip(classifiers, decoded)]  # noqa: B905 the coarser maps have none

    def decode(self, maps: list[Tensor], levels: list[Tensor]) -> list[Tensor]:
        """Return the decoded maps, from coarse to fine."""
        x = self.bottleneck(maps[-1], levels)
        decoded: list[Tensor] = []
        for index, (narrow, fusion) in enumerate(zip(self.narrow, self.fusions)):  # noqa: B905 TorchScript has no strict=
            skip = maps[len(maps) - 2 - index]
            x = fusion(resize(narrow(x), skip) + skip)
            decoded.append(x)
        return decoded
