# SPDX-License-Identifier: Apache-2.0
"""The distillation loss against torch's divergences and against what it mixes."""

import pytest
import torch
from monai.losses import DeepSupervisionLoss
from torch.distributions import Bernoulli, Categorical, kl_divergence

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.networks.distillation import DistillationLoss, TaughtTarget
from bundle.pyraseg.networks.losses import DiceFocalLoss, PartialTarget

SHAPE = (2, 3, 5, 4)


def example(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a network's logits, a teacher's, and a label."""
    generator = torch.Generator().manual_seed(seed)
    own, taught = (2 * torch.randn(SHAPE, generator=generator) for _ in range(2))
    return own, taught, torch.randint(0, 3, (2, 1, 5, 4), generator=generator)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_the_teachers_term_is_the_divergence_of_softened_probabilities(temperature):
    own, taught, label = example()
    found = DistillationLoss(DiceFocalLoss(), weight=1.0, temperature=temperature)(own, TaughtTarget(label, taught))
    of_teacher, of_network = (Categorical(logits=x.movedim(1, -1) / temperature) for x in (taught, own))
    expected = temperature**2 * kl_divergence(of_teacher, of_network).mean()
    torch.testing.assert_close(found, expected)


def test_channels_that_overlap_are_bernoulli_variables():
    own, taught, _ = example()
    label = (taught > 0).long()
    found = DistillationLoss(DiceFocalLoss(sigmoid=True), weight=1.0, temperature=3.0)(own, TaughtTarget(label, taught))
    expected = 9 * kl_divergence(Bernoulli(logits=taught / 3), Bernoulli(logits=own / 3)).mean()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_weight_mixes_both_terms_and_partial_labels_stay_partial():
    own, taught, label = example()
    target = PartialTarget(label, torch.tensor([[True, True, True], [True, False, True]]))
    loss = DiceFocalLoss(batch=True)
    alone = DistillationLoss(loss, weight=1.0)(own, TaughtTarget(target, taught))
    mixed = DistillationLoss(loss, weight=0.25)(own, TaughtTarget(target, taught))
    torch.testing.assert_close(mixed, 0.75 * loss(own, target) + 0.25 * alone)
    assert not torch.isclose(loss(own, target), loss(own, label))


def test_without_a_teacher_it_is_the_loss_itself():
    own, _, label = example()
    loss = DiceFocalLoss()
    assert torch.equal(DistillationLoss(loss, weight=0.7)(own, label), loss(own, label))


def test_the_main_logits_of_an_auxiliary_head_are_compared():
    own, taught, label = example()
    other = example(1)[0]
    loss = DeepSupervisionLoss(DiceFocalLoss(), weights=[1.0, 0.4])
    alone = DistillationLoss(loss, weight=1.0)(own, TaughtTarget(label, taught))
    found = DistillationLoss(loss, weight=0.5)([own, other], TaughtTarget(label, taught))
    torch.testing.assert_close(found, 0.5 * loss([own, other], label) + 0.5 * alone)


def test_a_network_that_agrees_learns_nothing_from_its_teacher():
    own, _, label = example()
    logits = own.clone().requires_grad_()
    DistillationLoss(DiceFocalLoss(), weight=1.0)(logits, TaughtTarget(label, own)).backward()
    assert logits.grad.abs().max() < 1e-7


@pytest.mark.parametrize(
    ("options", "words"),
    [({"weight": 1.5}, "distill_weight"), ({"weight": -0.1}, "distill_weight"), ({"temperature": 0}, "temperature")],
)
def test_shares_and_temperatures_that_mean_nothing_are_refused(options, words):
    with pytest.raises(PyrasegError, match=words):
        DistillationLoss(DiceFocalLoss(), **options)


def test_a_teacher_of_other_classes_is_refused():
    own, taught, label = example()
    with pytest.raises(PyrasegError, match="same classes"):
        DistillationLoss(DiceFocalLoss())(own, TaughtTarget(label, taught[:, :2]))
