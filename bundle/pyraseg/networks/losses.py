# SPDX-License-Identifier: Apache-2.0
"""Dice with focal loss or cross entropy over one model of the classes, without what nobody has annotated."""

from collections.abc import Sequence
from typing import NamedTuple

import monai.losses
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.pyraseg.core import PyrasegError


class PartialTarget(NamedTuple):
    """The labels of a batch, (B, 1, ...) as a loss takes them, and what each was annotated for, (B, C) bool.

    The background always is annotated: it is what belongs to none of a sample's annotated classes.
    """

    label: Tensor
    annotated: Tensor


class DiceFocalLoss(nn.Module):
    """Dice plus focal loss, both terms over the same probabilities and the same pixels.

    MONAI's class of this name computes a sigmoid focal term even where `softmax=True` makes the Dice term a softmax
    one: two different models of the same logits. Here exclusive classes have the focal loss of Lin et al. ("Focal Loss
    for Dense Object Detection", ICCV 2017) on the softmax probability p of the true class, -(1 - p)^gamma log p, and
    overlapping ones (`sigmoid=True`) the same on the sigmoid of each channel. The focal term is a mean over the pixels
    (with sigmoid: over pixels and channels) that count, so that with gamma 0 it equals torch's `cross_entropy`
    (`binary_cross_entropy_with_logits`). The Dice term is `monai.losses.DiceLoss`.

    An ignored pixel counts in no sum and no mean, and neither does the Dice of a sample or class that has no other: the
    loss is that of the data with those pixels cut out. A batch that is ignored as a whole costs 0.

    With a `PartialTarget`, what a sample was not annotated for may lie wherever its label is 0: there the probability
    of what is true is that of the background and of those classes together, in both terms. They have no Dice of their
    own in that sample, and their logits count as they are: the gradient of these is exactly 0. (With sigmoid, channels
    know nothing of each other, and theirs is left out.)

    Args:
        include_background: whether class 0 counts in the Dice term; the focal term always sees every class, since its
            pixels of background are what suppresses false positives.
        sigmoid: classes overlap, or the network has one channel for the foreground; softmax otherwise.
        batch: whether Dice is computed over the whole batch at once, which keeps slices without a class from being
            scored on their own (MONAI's meaning).
        gamma: exponent of the focal term.
        weight: one weight a class, background included. As in MONAI it multiplies the Dice of the class and the focal
            loss of its pixels (with sigmoid: of its channel) before the means, which do not divide by it: what a pixel
            costs does not depend on the classes of the others. `data.class_statistics` computes weights of mean 1.
        lambda_dice: factor of the Dice term.
        lambda_focal: factor of the focal term.
        ignore_index: value of a label that stands for "not known"; with sigmoid, where it stands in the target's
            channel, that class alone is not known.

    Shapes: logits (B, C, H, W[, D]) and class indices (B, 1, H, W[, D]), or with sigmoid 0 and 1 in (B, C, H, W[, D])
    -> scalar. In place of the target, a `PartialTarget` of it.

    Raises:
        PyrasegError: weights that do not fit the classes, or shapes that do not fit each other.

    >>> logits = torch.tensor([[4.0, -4.0], [-4.0, 4.0]]).reshape(1, 2, 1, 2)  # background, then foreground
    >>> right, wrong = torch.tensor([0, 1]), torch.tensor([1, 0])
    >>> loss = DiceFocalLoss()
    >>> [round(float(loss(logits, target.reshape(1, 1, 1, 2))), 2) for target in (right, wrong)]
    [0.0, 3.1]
    """

    def __init__(
        self,
        *,
        include_background: bool = True,
        sigmoid: bool = False,
        batch: bool = False,
        gamma: float = 2.0,
        weight: Sequence[float] | Tensor | None = None,
        lambda_dice: float = 0.7,
        lambda_focal: float = 0.3,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("gamma", gamma), ("lambda_dice", lambda_dice), ("lambda_focal", lambda_focal)):
            if value < 0:
                raise PyrasegError(f"{type(self).__name__} needs a {name} of at least 0, got {value}.")
        weight = None if weight is None else torch.as_tensor(weight, dtype=torch.float32)
        if weight is not None and (weight.ndim != 1 or not bool((weight.isfinite() & (weight >= 0)).all())):
            raise PyrasegError(
                f"The class weights must be finite and not negative, one a class: got {weight.tolist()}."
            )
        self.register_buffer("weight", weight)
        self.sigmoid = sigmoid
        self.gamma = gamma
        self.lambda_dice = lambda_dice
        self.lambda_focal = lambda_focal
        self.ignore_index = ignore_index
        self.first = 0 if include_background else 1
        self.batch = batch
        self.dice = monai.losses.DiceLoss(batch=batch, reduction="none")

    def forward(self, input: Tensor, target: Tensor | PartialTarget) -> Tensor:
        target, annotated = target if isinstance(target, PartialTarget) else (target, None)
        self._check(input, target, annotated)
        logits = input.to(torch.promote_types(input.dtype, torch.float32))  # half precision overflows in the sums
        known = None
        if self.ignore_index is not None:
            ignored = target == self.ignore_index
            target = target.masked_fill(ignored, 0)
            known = 1 - ignored.to(logits.dtype)
        weight = None if self.weight is None else self.weight.to(logits)
        taught = None if annotated is None else annotated.reshape(*annotated.shape, *[1] * (logits.ndim - 2))
        if self.sigmoid:
            if taught is not None:
                known = (taught if known is None else taught * known).to(logits.dtype).expand(logits.shape)
            truth = target.to(logits.dtype)
            probability = logits.sigmoid()
            log_p = F.logsigmoid(logits * (2 * truth - 1))
            pixel_weight = None if weight is None else weight.reshape(-1, *[1] * (logits.ndim - 2))
        else:
            classes = target.long()
            log_softmax = logits.log_softmax(dim=1) if taught is None else _log_softmax_of_annotated(logits, taught)
            truth = torch.zeros_like(logits).scatter_(1, classes, 1)
            probability = log_softmax.exp()
            log_p = log_softmax.gather(1, classes)
            pixel_weight = None if weight is None else weight[classes]
        dice = self._dice(probability, truth, known, weight, annotated)
        return self.lambda_dice * dice + self.lambda_focal * self._focal(log_p, known, pixel_weight)

    def _dice(
        self,
        probability: Tensor,
        truth: Tensor,
        known: Tensor | None,
        weight: Tensor | None,
        annotated: Tensor | None,
    ) -> Tensor:
        """Return the mean of 1 - Dice over the classes, and over the samples unless they are pooled.

        What a sample was not annotated for has a probability and a truth of 0 there: it adds nothing to a pool.
        """
        shown = slice(0 if probability.shape[1] == 1 else self.first, None)
        scored = None if annotated is None else annotated.to(probability.dtype)
        if known is not None:
            probability, truth = probability * known, truth * known
            seen = known.flatten(2).amax(dim=2).expand(probability.shape[:2])
            scored = seen if scored is None else seen * scored
        if scored is not None:
            scored = scored[:, shown]
            scored = scored.amax(dim=0) if self.batch else scored
        losses = self.dice(probability[:, shown], truth[:, shown]).flatten(0 if self.batch else 1)
        return _mean(losses if weight is None else losses * weight[shown], scored)

    def _focal(self, log_p: Tensor, known: Tensor | None, weight: Tensor | None) -> Tensor:
        """Return the mean of -(1 - p)^gamma log p, with p the probability of what is true at a pixel."""
        # An exponent below 1 has no finite slope at p = 1, where the loss is 0 and its own slope is 0 as well.
        missing = (-log_p.expm1()).clamp_min(torch.finfo(log_p.dtype).tiny)
        losses = -missing.pow(self.gamma) * log_p
        return _mean(losses if weight is None else losses * weight, known)

    def _check(self, input: Tensor, target: Tensor, annotated: Tensor | None) -> None:
        channels = input.shape[1]
        expected = (input.shape[0], channels if self.sigmoid else 1, *input.shape[2:])
        if target.shape != expected:
            raise PyrasegError(
                f"{type(self).__name__} has logits of shape {tuple(input.shape)} and so needs a target of shape "
                f"{expected}, got {tuple(target.shape)}. Classes that overlap, one channel each, need sigmoid=True."
            )
        if annotated is not None and annotated.shape != input.shape[:2]:
            raise PyrasegError(
                f"{type(self).__name__} has logits of shape {tuple(input.shape)} and so needs to know of "
                f"{tuple(input.shape[:2])} samples and classes which were annotated, got {tuple(annotated.shape)}."
            )
        if channels == 1 and not self.sigmoid:
            raise PyrasegError(
                f"{type(self).__name__} has logits of one channel, whose softmax is 1 everywhere: give the network two "
                "output channels, or set sigmoid=True."
            )
        if self.weight is not None and len(self.weight) != channels:
            raise PyrasegError(f"There are {len(self.weight)} class weights for {channels} classes: give one a class.")


class DiceCELoss(DiceFocalLoss):
    """Dice plus cross entropy, by default half of each.

    With two exclusive classes and `include_background=False` this is binary cross entropy plus the Dice of the
    foreground, on the difference of the two logits. With `sigmoid=True` and one channel it is the same on that channel.

    Args:
        lambda_ce: factor of the cross entropy; the others are those of `DiceFocalLoss`.
    """

    def __init__(
        self,
        *,
        include_background: bool = True,
        sigmoid: bool = False,
        batch: bool = False,
        weight: Sequence[float] | Tensor | None = None,
        lambda_dice: float = 0.5,
        lambda_ce: float = 0.5,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(
            include_background=include_background,
            sigmoid=sigmoid,
            batch=batch,
            gamma=0,
            weight=weight,
            lambda_dice=lambda_dice,
            lambda_focal=lambda_ce,
            ignore_index=ignore_index,
        )


def _log_softmax_of_annotated(logits: Tensor, taught: Tensor) -> Tensor:
    """Return the log softmax of (B, C, ...), in which the background has the probability of all that was not annotated.

    Of a class that a sample was not annotated for, the result is minus infinity, and the gradient 0.
    """
    log_softmax = torch.where(taught, logits, logits.detach()).log_softmax(dim=1)
    named = taught.clone()
    named[:, 0] = False
    rest = log_softmax.masked_fill(named, -torch.inf).logsumexp(dim=1, keepdim=True)
    return torch.cat([rest, log_softmax[:, 1:].masked_fill(~taught[:, 1:], -torch.inf)], dim=1)


def _mean(values: Tensor, counted: Tensor | None) -> Tensor:
    """Return the mean of the values that count (1, others 0), or of all of them; 0 where none counts."""
    return values.mean() if counted is None else (values * counted).sum() / counted.sum().clamp_min(1)
