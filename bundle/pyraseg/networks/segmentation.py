# SPDX-License-Identifier: Apache-2.0
"""What every segmentation network here shares: parts that learn or stand still by name, an encoder, a decoder of its
own, sizes, and an auxiliary head."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks.encoders import build_encoder
from bundle.pyraseg.networks.heads import AuxiliaryHead
from bundle.pyraseg.networks.layers import enlarge, pad_to_multiple


class PartwiseNetwork(nn.Module):
    """A network whose direct children are its named parts, such as `encoder`, `pyramid` and `head`.

    A dotted name is a finer part: `encoder.stages.3`. The network owns which parts are frozen: a frozen part has no
    gradients and stays in evaluation mode inside `train()`, so that its batch-norm statistics stand still as well. (A
    trainer calls `train()` every iteration.) A part that learns may keep its statistics too: pretrained ones, which the
    parts behind it have learned to read, move faster in training mode than small rates let those parts follow.

    >>> class Small(PartwiseNetwork):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.encoder = nn.Conv2d(1, 4, 3)
    ...         self.head = nn.Conv2d(4, 2, 1)
    >>> network = Small()
    >>> network.learn_only(["head"])
    >>> [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    ['head.weight', 'head.bias']
    """

    def __init__(self) -> None:
        super().__init__()
        self._learns: dict[str, bool] = {}  # what was said about a part; finer names rule over coarser ones
        self._freeze_batch_norm: list[str] = []

    def part_names(self) -> list[str]:
        """Return the names of the parts that have parameters, in order."""
        return [name for name, part in self.named_children() if any(True for _ in part.parameters())]

    def encoder_layers(self) -> list[str]:
        """Return the names of the encoder's stem and stages, from the image on; one name for an undivided encoder."""
        finer = [name for name, _ in self.named_modules() if re.fullmatch(r"encoder\.(stem|stages\.\d+)", name)]
        return [name for name in finer if any(True for _ in self.get_submodule(name).parameters())] or ["encoder"]

    def check_parts(self, names: Iterable[str]) -> None:
        """Raise PyrasegError unless every name is that of a part, or of a finer part, that has parameters."""
        modules = dict(self.named_modules())
        unknown = [name for name in names if name not in modules or not list(modules[name].parameters()) or not name]
        if unknown:
            finer = [name for name in modules if name.startswith("encoder.stages.") and name.count(".") == 2]
            raise PyrasegError(
                f"The network has no part {', '.join(map(repr, unknown))}. Its parts: {self.part_names()}"
                + (f", with finer ones such as {finer[-1]}." if finer else ".")
            )

    def freeze(self, *names: str) -> None:
        """Freeze the named parts, whatever was said about finer parts of theirs before.

        Raises:
            PyrasegError: a name is not a part of this network.
        """
        self._set_learning(names, learns=False)

    def unfreeze(self, *names: str) -> None:
        """Let the named parts learn, whatever was said about finer parts of theirs before.

        Raises:
            PyrasegError: a name is not a part of this network.
        """
        self._set_learning(names, learns=True)

    def learn_only(self, names: Iterable[str], *, freeze_batch_norm: Iterable[str] = ()) -> None:
        """Let the named parts learn and freeze everything else.

        Args:
            names: parts that learn.
            freeze_batch_norm: parts whose batch norm normalizes by its running statistics, and leaves them as they are,
                also where it learns.

        Raises:
            PyrasegError: a name is not a part of this network.
        """
        names, kept = list(names), list(freeze_batch_norm)
        self.check_parts([*names, *kept])
        self._freeze_batch_norm = kept
        self.freeze(*self.part_names())
        self.unfreeze(*names)

    def train(self, mode: bool = True) -> "PartwiseNetwork":
        super().train(mode)
        for name in sorted(self._learns, key=len):  # from coarse to fine: a finer part's name is longer
            self.get_submodule(name).train(mode and self._learns[name])
        for name in self._freeze_batch_norm:
            for module in self.get_submodule(name).modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def parameter_groups(self, finer: Iterable[str] = ()) -> list[dict]:
        """Return one optimizer group a part, with its `name`: every parameter is in a group from the first epoch on.

        Args:
            finer: names of finer parts to have groups of their own; a parameter is in the group of the finest part
                that holds it.

        Raises:
            PyrasegError: a name is not a part of this network.
        """
        finer = list(finer)
        self.check_parts(finer)
        groups: dict[str, list[nn.Parameter]] = {name: [] for name in [*self.part_names(), *finer]}
        for name, parameter in self.named_parameters():
            holders = [part for part in groups if name.startswith(f"{part}.")]
            groups[max(holders, key=len)].append(parameter)
        return [{"name": name, "params": parameters} for name, parameters in groups.items() if parameters]

    def _set_learning(self, names: Iterable[str], *, learns: bool) -> None:
        names = list(names)
        self.check_parts(names)
        for name in names:
            self._learns = {part: said for part, said in self._learns.items() if not f"{part}.".startswith(f"{name}.")}
            self._learns[name] = learns
        for name in sorted(self._learns, key=len):
            self.get_submodule(name).requires_grad_(self._learns[name])
        self.train(self.training)


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
        encoder, pretrained, output_stride, depth, patch_stem: see `build_encoder`.
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
        patch_stem: bool = False,
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
            patch_stem=patch_stem,
        )
        self.auxiliary: AuxiliaryHead | None = None
        if auxiliary:
            if len(self.encoder.channels) < 2:
                raise PyrasegError("An auxiliary head needs an encoder of two stages or more; raise `depth`.")
            self.auxiliary = AuxiliaryHead(
                self.encoder.channels[-2], out_channels, norm=norm, dropout=dropout, spatial_dims=spatial_dims
            )

    def decode(self, maps: list[Tensor], image: Tensor) -> Tensor:
        """Return logits of any size from the encoder's maps, given from fine to coarse, and the padded image."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:  # or a list in training; TorchScript, which reads this, knows one type
        padded = pad_to_multiple(image, [32] * (image.dim() - 2))
        maps = self.encoder(padded)
        logits = enlarge(self.decode(maps, padded), padded, image)
        if not torch.jit.is_scripting():  # noqa: SIM102 TorchScript leaves out a whole block, not a condition
            if self.auxiliary is not None and self.training:
                return [logits, enlarge(self.auxiliary(maps[-2]), padded, image)]  # pyrefly: ignore # see above
        return logits

    def skip_indices(self, strides: Sequence[int]) -> list[int]:
        """Return where the encoder's maps of these strides are, those finer than its last one."""
        finer = {stride: index for index, stride in enumerate(self.encoder.strides[:-1])}  # the deepest of each stride
        return [finer[stride] for stride in strides if stride in finer and stride < self.encoder.strides[-1]]
