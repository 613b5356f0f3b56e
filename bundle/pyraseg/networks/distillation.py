# SPDX-License-Identifier: Apache-2.0
"""Distillation (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015), pixel by pixel."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks.losses import PartialTarget


class TaughtTarget(NamedTuple):
    """What a loss takes for a batch, and the logits that a teacher gives the same images, (B, C, ...)."""

    target: Tensor | PartialTarget
    logits: Tensor


class DistillationLoss(nn.Module):
    """Mix the loss against the labels with how far the network's probabilities are from those of a teacher.

    The second term is T^2 times the mean over the pixels of KL(teacher || network), both softened by the temperature T:
    the factor keeps its gradients as large as those of the first (section 2 of the paper). Where a loss has one sigmoid
    a channel, it is that of Bernoulli variables, a mean over the channels as well.

    Args:
        loss: against the labels. It gets whatever comes without a teacher's logits, unchanged.
        weight: share of the second term, from 0 (labels alone) to 1 (teacher alone).
        temperature: divides both logits.

    Shapes: logits (B, C, H, W[, D]), or the list of a network with an auxiliary head, whose first ones are compared,
    and a `TaughtTarget` -> scalar.

    Raises:
        PyrasegError: a weight outside [0, 1], a temperature that is not above 0, or a teacher of other classes.

    >>> import torch
    >>> right = torch.tensor([[2.0], [-2.0]]).reshape(1, 2, 1, 1)
    >>> label = torch.zeros(1, 1, 1, 1)
    >>> loss = DistillationLoss(nn.CrossEntropyLoss(), weight=1.0)
    >>> [round(float(loss(logits, TaughtTarget(label, right))), 2) for logits in (right, -right)]
    [0.0, 6.09]
    """

    def __init__(self, loss: Any, *, weight: float = 0.5, temperature: float = 2.0) -> None:
        super().__init__()
        if not 0 <= weight <= 1:
            raise PyrasegError(f"`distill_weight` is a share from 0 to 1, not {weight}.")
        if temperature <= 0:
            raise PyrasegError(f"`distill_temperature` is above 0, not {temperature}.")
        self.loss, self.weight, self.temperature = loss, weight, temperature

    def forward(self, input: Tensor | Sequence[Tensor], target: Tensor | PartialTarget | TaughtTarget) -> Tensor:
        if not isinstance(target, TaughtTarget):
            return self.loss(input, target)
        logits = input if isinstance(input, Tensor) else input[0]
        if logits.shape != target.logits.shape:
            raise PyrasegError(
                f"The teacher gives logits of shape {tuple(target.logits.shape)}, the network of "
                f"{tuple(logits.shape)}. Distill from a model of the same classes."
            )
        own, taught = logits.float() / self.temperature, target.logits.float() / self.temperature
        if _is_sigmoid(self.loss):
            soft = taught.sigmoid()
            certain = F.binary_cross_entropy_with_logits(taught, soft)
            distance = F.binary_cross_entropy_with_logits(own, soft) - certain
        else:
            log_soft = taught.log_softmax(dim=1)
            distance = (log_soft.exp() * (log_soft - own.log_softmax(dim=1))).sum(dim=1).mean()
        share = self.weight * self.temperature**2 * distance
        return share if self.weight == 1 else (1 - self.weight) * self.loss(input, target.target) + share


def _is_sigmoid(loss: Any) -> bool:
    """Return whether a loss has one sigmoid a channel, seen through losses around it, as that of deep supervision."""
    while not hasattr(loss, "sigmoid") and hasattr(loss, "loss"):
        loss = loss.loss
    return bool(getattr(loss, "sigmoid", False))
