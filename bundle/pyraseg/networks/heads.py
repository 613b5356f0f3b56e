# SPDX-License-Identifier: Apache-2.0
"""From pooled features to class scores: the convolution behind pyramid pooling, and the heads of networks.

There is the plain head of PSPNet, one that follows the edges of finer maps, and a small one that helps an encoder to
learn.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv, Dropout
from torch import Tensor, nn

from bundle.pyraseg.networks.layers import ConvNormAct, DetailMaps, interpolation_matrix, numbered, resize


class PyramidBottleneck(ConvNormAct):
    """Mix a map and its pyramid levels: convolution of width 3, normalization, ReLU.

    In the plain form, the levels are upsampled, appended to the map and convolved. In 2-D that is folded: upsampling
    and convolution are both linear, so each level is multiplied with its slice of the weight at its own few bins, and
    upsampled afterwards. Both forms have the same parameters and, to rounding, the same results and gradients.

    Args:
        in_channels: channels of the map.
        level_channels: channels of all levels together.

    Shapes: (B, in_channels, H, W[, D]) and levels (B, C_k, b_k, b_k[, b_k]) -> (B, out_channels, H, W[, D]).
    """

    def __init__(
        self, in_channels: int, level_channels: int, out_channels: int, *, norm: str | tuple, spatial_dims: int = 2
    ) -> None:
        super().__init__(
            in_channels + level_channels, out_channels, kernel_size=3, norm=norm, spatial_dims=spatial_dims
        )
        self.folded = spatial_dims == 2

    def forward(self, features: Tensor, levels: list[Tensor]) -> Tensor:  # pyrefly: ignore # two inputs, not one
        if self.folded:
            mixed = folded_convolution(features, levels, self[0].weight)  # pyrefly: ignore # the first child is a convolution
        else:
            mixed = self[0](torch.cat([features] + [resize(level, features) for level in levels], dim=1))
        return self[2](self[1](mixed))


def folded_convolution(features: Tensor, levels: list[Tensor], weight: Tensor) -> Tensor:
    """Convolve a map and its upsampled pyramid levels with a 3x3 kernel and a zero border, without upsampling them.

    With U the matrices that upsample a level p along rows and columns, and S_i the shift by i - 1 that brings in zeros,
    the convolution of the upsampled level is the sum over taps (i, j) of S_i U (w_ij p) (S_j U)^T: the taps' products
    w_ij p at b x b, then one matrix product along rows and one along columns, which sums over the levels as well.

    Args:
        features: (B, C, H, W).
        levels: square maps (B, C_k, b_k, b_k), in the order of the weight's channels.
        weight: (out_channels, C + sum of C_k, 3, 3).

    Returns:
        (B, out_channels, H, W), as `conv2d(cat([features, *upsampled]), weight, padding=1)`.
    """
    # One split, so that the gradients of the slices are joined by one copy.
    slices = weight.split_with_sizes([features.shape[1]] + [level.shape[1] for level in levels], dim=1)
    height, width = features.shape[-2:]
    bins = [level.shape[-1] for level in levels]
    rows = shifted_interpolation(height, bins, features)
    columns = shifted_interpolation(width, bins, features)
    along_rows: list[Tensor] = []
    column = 0
    for index, level in enumerate(levels):
        batch, _, count = level.shape[:3]
        taps = slices[index + 1].permute(0, 2, 3, 1).flatten(0, 2)  # a view of a weight whose channels are last
        products = level.flatten(2).transpose(1, 2) @ taps.transpose(0, 1)
        # (B, rows, columns, out, i, j) -> (B, rows and i, columns and j and out): channels last, as the map is.
        products = products.reshape(batch, count, count, -1, 3, 3).permute(0, 1, 4, 2, 5, 3)
        products = rows[:, column : column + 3 * count] @ products.reshape(batch, 3 * count, -1)
        along_rows.append(products.reshape(batch, height, 3 * count, -1))
        column += 3 * count
    pyramid = (columns @ torch.cat(along_rows, dim=2)).permute(0, 3, 1, 2)
    return F.conv2d(features, slices[0], padding=1) + pyramid


def shifted_interpolation(size: int, bins: list[int], like: Tensor) -> Tensor:
    """Return the matrices that upsample values linearly to `size` and shift the result by one either way.

    Args:
        size: number of positions; may be symbolic while a graph is exported.
        bins: number of values of each level.
        like: tensor whose device and floating type the result takes.

    Returns:
        Tensor of shape (size, 3 * sum(bins)): row r of column 3 k + i is the weight of value k at position r + i - 1,
        and zero outside the positions.
    """
    number, count = numbered(bins, like)
    upsampling = F.pad(interpolation_matrix(size, number, count, like, kept=size), [0, 0, 1, 1])
    return torch.stack([upsampling[:-2], upsampling[1:-1], upsampling[2:]], dim=2).flatten(1)


class Classifier(nn.Sequential):
    """Dropout of whole channels, then a 1x1 convolution to class scores."""

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float, spatial_dims: int = 2) -> None:
        super().__init__(
            Dropout[Dropout.DROPOUT, spatial_dims](dropout),
            Conv[Conv.CONV, spatial_dims](in_channels, out_channels, kernel_size=1),
        )


class PlainHead(nn.Module):
    """Mix the pyramid's levels by a convolution of width 3 and classify every position of the coarse map.

    Shapes: map (B, in_channels, h, w[, d]), its pyramid levels, finer maps and the image, which are not used -> logits
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

    def forward(self, features: Tensor, levels: list[Tensor], skips: list[Tensor], image: Tensor) -> Tensor:
        return self.classifier(self.bottleneck(features, levels))


class SkipHead(nn.Module):
    """Carry the mixed pyramid down to finer maps, adding each through a lateral connection, and classify there.

    The top-down path of feature pyramid networks (Lin et al., CVPR 2017) behind pyramid pooling, as UPerNet has it
    (Xiao et al., ECCV 2018), with separable convolutions.

    Args:
        in_channels: channels of the map that was pooled.
        level_channels: channels of its pyramid levels together.
        skip_channels: channels of the finer maps, from coarse to fine.
        image_channels: of the image, for a head that goes on to its full resolution (`refinements` 2) or half of it
            (1), where structures are thinner than the finest map's pixels; None for one that ends with the skips.

    Shapes: map (B, in_channels, h, w[, d]), its levels, skips from coarse to fine, and the image -> logits of the
    size of the finest skip or refinement.
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
        image_channels: int | None = None,
        refinements: int = 0,
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {"norm": norm, "spatial_dims": spatial_dims}
        self.bottleneck = PyramidBottleneck(in_channels, level_channels, bottleneck, **options)
        self.laterals = nn.ModuleList(ConvNormAct(c, bottleneck, kernel_size=1, **options) for c in skip_channels)
        self.fusions = nn.ModuleList(
            ConvNormAct(bottleneck, bottleneck, kernel_size=3, separable=True, **options) for _ in skip_channels
        )
        self.detail: DetailMaps | None = None
        if refinements:
            assert image_channels is not None  # whoever refines says of how many channels the image is
            self.detail = DetailMaps(image_channels, **options)
        widths = [bottleneck, *DetailMaps.channels[::-1][:refinements]]
        self.narrow = nn.ModuleList(Conv[Conv.CONV, spatial_dims](a, b, kernel_size=1) for a, b in pairwise(widths))
        self.refinements = nn.ModuleList(ConvNormAct(b, b, kernel_size=3, **options) for b in widths[1:])
        self.classifier = Classifier(widths[-1], out_channels, dropout=dropout, spatial_dims=spatial_dims)

    def forward(self, features: Tensor, levels: list[Tensor], skips: list[Tensor], image: Tensor) -> Tensor:
        x = self.bottleneck(features, levels)
        for index, (lateral, fusion) in enumerate(zip(self.laterals, self.fusions)):  # noqa: B905 TorchScript has no strict=
            skip = skips[index]
            x = fusion(resize(x, skip) + lateral(skip))
        if self.detail is not None:
            finer = self.detail(image)
            for index, (narrow, refine) in enumerate(zip(self.narrow, self.refinements)):  # noqa: B905
                skip = finer[1 - index]
                x = refine(resize(narrow(x), skip) + skip)
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
