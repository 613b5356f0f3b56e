# SPDX-License-Identifier: Apache-2.0
"""The loss against torch's cross entropy and against NumPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bundle.pyraseg.losses import DiceFocalLoss


@pytest.fixture
def logits_and_labels():
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(3, 4, 6, 5, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, 3, (3, 1, 6, 5), generator=generator)  # class 3 is absent


def test_focal_term_with_gamma_zero_is_cross_entropy(logits_and_labels):
    logits, labels = logits_and_labels
    loss = DiceFocalLoss(lambda_dice=0, lambda_focal=1, gamma=0)(logits, labels)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels[:, 0]))


@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("batch", [True, False])
def test_equals_a_numpy_implementation(logits_and_labels, include_background, batch):
    logits, labels = logits_and_labels
    loss = DiceFocalLoss(include_background=include_background, batch=batch)(logits, labels).item()

    probability = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    truth = np.stack([labels.numpy()[:, 0] == c for c in range(4)], axis=1)
    p_true = (probability * truth).sum(axis=1)
    focal = np.mean(-((1 - p_true) ** 2) * np.log(p_true))
    axes = (0, 2, 3) if batch else (2, 3)
    overlap, volume = (probability * truth).sum(axes), probability.sum(axes) + truth.sum(axes)
    dice = 1 - (2 * overlap + 1e-5) / (volume + 1e-5)
    dice = dice[..., 0 if include_background else 1 :].mean()
    assert loss == pytest.approx(0.7 * dice + 0.3 * focal, rel=1e-6)


def test_a_confident_right_answer_costs_nothing_and_a_wrong_one_does():
    labels = torch.arange(4).reshape(1, 1, 2, 2)
    right = 50 * F.one_hot(labels[:, 0], 4).movedim(-1, 1).float()
    assert DiceFocalLoss()(right, labels).item() == pytest.approx(0, abs=1e-4)
    assert DiceFocalLoss()(right.roll(1, dims=1), labels).item() > 10
