# SPDX-License-Identifier: Apache-2.0
"""What MONAI's losses do not express."""

import monai.losses


class DiceFocalLoss(monai.losses.DiceFocalLoss):
    """Dice plus focal loss for exclusive classes, both terms over the same softmax.

    MONAI's class of this name computes a sigmoid focal term even where `softmax=True` makes the Dice term a softmax
    one: two different models of the same logits. Here the focal term is Lin et al.'s ("Focal Loss for Dense Object
    Detection", ICCV 2017) on the softmax probability p of the true class, -(1 - p)^gamma log p. MONAI averages it over
    pixels and classes; it is multiplied by the number of classes, so that it is the mean over pixels and with gamma 0
    equals `torch.nn.functional.cross_entropy`.

    Args:
        include_background: whether class 0 counts in the Dice term; the focal term always sees every class, since its
            pixels of background are what suppresses false positives.
        lambda_dice: weight of the Dice term.
        lambda_focal: weight of the focal term.
        gamma: exponent of the focal term.
        batch: whether Dice is computed over the whole batch at once, which keeps slices without a class from being
            scored on their own (MONAI's meaning).

    Shapes: logits (B, C, H, W[, D]), class indices (B, 1, H, W[, D]) -> scalar.
    """

    def __init__(
        self,
        *,
        include_background: bool = True,
        lambda_dice: float = 0.7,
        lambda_focal: float = 0.3,
        gamma: float = 2.0,
        batch: bool = False,
    ) -> None:
        super().__init__(
            include_background=include_background,
            to_onehot_y=True,
            softmax=True,
            batch=batch,
            gamma=gamma,
            lambda_dice=lambda_dice,
            lambda_focal=lambda_focal,
        )
        self.focal = _PixelwiseFocalLoss(gamma=gamma, use_softmax=True)


class _PixelwiseFocalLoss(monai.losses.FocalLoss):
    """MONAI's focal loss as a mean over pixels: the classes of a pixel are summed, not averaged."""

    def forward(self, input, target):
        return super().forward(input, target) * input.shape[1]
