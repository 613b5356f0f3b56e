# SPDX-License-Identifier: Apache-2.0
"""What every segmentation network here shares: an encoder, a decoder of its own, sizes, an auxiliary head, parts."""

from pathlib import Path

import torch
from torch import Tensor

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks.encoders import build_encoder
from bundle.pyraseg.networks.heads import AuxiliaryHead
from bundle.pyraseg.networks.layers import enlarge, pad_to_multiple
from bundle.pyraseg.networks.parts import PartwiseNetwork


class SegmentationNetwork(PartwiseNetwork):
    """An encoder whose maps a subclass turns into logits by `decode`, for images of any size.

    The image is padded to the encoder's multiple and the logits are cut back. With an auxiliary head, the network
    returns a list of two logits while it is in training mode, the main ones first; `monai.losses.DeepSupervisionLoss`
    takes such a list and weights it (`weights=[1.0, 0.4]`). In evaluation mode, scripted or exported it returns the
    main ones alone.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: classes, background included.
        encoder, pretrained, output_stride, depth: see `build_encoder`.
        auxiliary: whether the last but one map of the encoder has a head of its own, the part `auxiliary`.
        norm: normalization behind the encoder, in MONAI's notation.
        dropout: share of the channels in front of a classifier that are dropped in training.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        encoder: str,
        pretrained: bool | str | Path,
        output_stride: int,
        depth: int | None,
        auxiliary: bool,
        norm: str | tuple,
        dropout: float,
    ) -> None:
        super().__init__()
        self.dropout = dropout  # MONAI Label switches on uncertainty scoring by this attribute
        self.encoder = build_encoder(
            encoder,
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            pretrained=pretrained,
            output_stride=output_stride,
            depth=depth,
        )
        self.auxiliary: AuxiliaryHead | None = None
        if auxiliary:
            if len(self.encoder.channels) < 2:
                raise PyrasegError("An auxiliary head needs an encoder of two stages or more; raise `depth`.")
            self.auxiliary = AuxiliaryHead(
                self.encoder.channels[-2], out_channels, norm=norm, dropout=dropout, spatial_dims=spatial_dims
            )

    def decode(self, maps: list[Tensor]) -> Tensor:
        """Return logits of any size from the encoder's maps, given from fine to coarse."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:  # or a list in training; TorchScript, which reads this, knows one type
        padded = pad_to_multiple(image)
        maps = self.encoder(padded)
        logits = enlarge(self.decode(maps), padded, image)
        if not torch.jit.is_scripting():  # noqa: SIM102 TorchScript leaves out a whole block, not a condition
            if self.auxiliary is not None and self.training:
                return [logits, enlarge(self.auxiliary(maps[-2]), padded, image)]  # pyrefly: ignore # see above
        return logits

    def skip_indices(self, strides: tuple[int, ...]) -> list[int]:
        """Return where the encoder's maps of these strides are, those finer than its last one."""
        finer = {stride: index for index, stride in enumerate(self.encoder.strides[:-1])}  # the deepest of each stride
        return [finer[stride] for stride in strides if stride in finer and stride < self.encoder.strides[-1]]
