# SPDX-License-Identifier: Apache-2.0
"""A loss over the logits of several maps of a network."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks.losses import PartialTarget


class DeepSupervisionLoss(nn.Module):
    """The mean of a loss over logits at several sizes, each against the label at its size.

    (MONAI's class of this name takes a label alone, and sums. Here a `PartialTarget` may come in its place, and the
    mean keeps the scale of the loss, so that networks with and without deep supervision share a learning rate.)

    Args:
        loss: from logits and target to a number.
        weights: of the sizes, the finest first; what is beyond their number does not count.

    Shapes: logits (B, C, ...), or a list of them from fine to coarse, and a target of the size of the finest. Labels
    are taken at the nearest voxel centers.

    >>> import torch
    >>> from bundle.pyraseg.networks import DiceFocalLoss
    >>> loss = DeepSupervisionLoss(DiceFocalLoss(), weights=[1, 0.5])
    >>> logits, label = torch.zeros(1, 2, 4, 4, 4), torch.ones(1, 1, 4, 4, 4)
    >>> bool(torch.isclose(loss([logits, logits[..., ::2, ::2, ::2]], label), loss(logits, label)))
    True
    """

    def __init__(self, loss: nn.Module, *, weights: Sequence[float] = (1.0, 0.5, 0.25)) -> None:
        super().__init__()
        if not weights or min(weights) < 0 or sum(weights) == 0:
            raise PyrasegError(f"Deep supervision takes weights of at least 0, not all of them 0: got {list(weights)}.")
        self.loss = loss
        self.weights = list(weights)

    def forward(self, input: Tensor | Sequence[Tensor], target: Tensor | PartialTarget) -> Tensor:
        if isinstance(input, Tensor):
            return self.loss(input, target)
        pairs = list(zip(self.weights, input))  # noqa: B905 what has no weight does not count
        total: Any = sum(weight * self.loss(logits, _sized(target, logits)) for weight, logits in pairs)
        return total / sum(weight for weight, _ in pairs)


def _sized(target: Any, logits: Tensor) -> Any:
    """Return a target at the size of logits."""
    if isinstance(target, PartialTarget):
        return target._replace(label=_sized(target.label, logits))
    if target.shape[2:] == logits.shape[2:]:
        return target
    return F.interpolate(target, size=logits.shape[2:], mode="nearest-exact")
