# SPDX-License-Identifier: Apache-2.0
"""The loss over several sizes against MONAI's, with partial labels and with regions that overlap."""

import monai.losses
import pytest
import torch

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.networks.deep_supervision import DeepSupervisionLoss
from bundle.pyraseg.networks.distillation import DistillationLoss, TaughtTarget
from bundle.pyraseg.networks.losses import DiceFocalLoss, PartialTarget

WEIGHTS = [1.0, 0.5, 0.25]


def example(channels: int = 3) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return logits at three sizes, and a label of the first."""
    generator = torch.Generator().manual_seed(3)
    sizes = [(2, channels, 8, 12, 6), (2, channels, 4, 6, 3), (2, channels, 2, 3, 3)]
    logits = [torch.randn(size, generator=generator, requires_grad=True) for size in sizes]
    return logits, torch.randint(0, channels, (2, 1, 8, 12, 6), generator=generator).to(torch.uint8)


def test_it_is_the_mean_where_monai_has_the_sum():
    logits, label = example()
    found = DeepSupervisionLoss(DiceFocalLoss(), weights=WEIGHTS)(logits, label)
    expected = monai.losses.DeepSupervisionLoss(DiceFocalLoss(), weights=WEIGHTS)(logits, label)
    torch.testing.assert_close(found, expected / sum(WEIGHTS))
    found.backward()
    assert all(each.grad.abs().sum() > 0 for each in logits)


def test_what_has_no_weight_does_not_count():
    logits, label = example()
    DeepSupervisionLoss(DiceFocalLoss(), weights=WEIGHTS[:2])(logits, label).backward()
    assert [each.grad is None for each in logits] == [False, False, True]


def test_one_size_is_the_loss_itself():
    logits, label = example()
    assert torch.equal(DeepSupervisionLoss(DiceFocalLoss())(logits[0], label), DiceFocalLoss()(logits[0], label))


def test_partial_labels_stay_partial_at_every_size():
    """What a class was not annotated for gets no gradient from its logits, as at full size."""
    logits, label = example()
    annotated = torch.tensor([[True, True, False], [True, True, False]])
    target = PartialTarget(label.clamp(max=1), annotated)
    DeepSupervisionLoss(DiceFocalLoss(), weights=WEIGHTS)(logits, target).backward()
    for each in logits:
        assert (each.grad[:, 2] == 0).all() and each.grad[:, 1].abs().sum() > 0


@pytest.mark.parametrize("wrapper", [DeepSupervisionLoss, monai.losses.DeepSupervisionLoss])
def test_a_teacher_of_overlapping_regions_is_asked_for_their_own_probabilities(wrapper):
    logits, label = example()
    regions = torch.cat([label > 0, label > 1, label > 1], dim=1).float()
    target = TaughtTarget(regions, torch.randn_like(logits[0]))
    plain = DistillationLoss(DiceFocalLoss(sigmoid=True), weight=1.0)(logits, target)
    assert torch.equal(DistillationLoss(wrapper(DiceFocalLoss(sigmoid=True)), weight=1.0)(logits, target), plain)
    softmax = DistillationLoss(wrapper(DiceFocalLoss()), weight=1.0)(logits, target)
    assert not torch.isclose(softmax, plain)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -0.5]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(PyrasegError, match="at least 0, not all of them 0"):
        DeepSupervisionLoss(DiceFocalLoss(), weights=weights)
