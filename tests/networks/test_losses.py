# SPDX-License-Identifier: Apache-2.0
"""The losses against closed forms, torch's and MONAI's own, and an implementation in NumPy that loops over pixels."""

import math

import monai.losses
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.networks.losses import DiceCELoss, DiceFocalLoss, PartialTarget

CLASSES, ABSENT, IGNORED = 4, 3, 255
WEIGHT = [0.25, 1.5, 2.0, 0.5]
SHAPES = [(3, CLASSES, 6, 5), (2, CLASSES, 4, 3, 3)]


def example(shape: tuple[int, ...], *, sigmoid: bool, ignored: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random logits and a target without class 3, in which a share of the pixels is not known."""
    generator = torch.Generator().manual_seed(7)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    if sigmoid:
        target = torch.randint(0, 2, shape, generator=generator)
        target[:, ABSENT] = 0
    else:
        target = torch.randint(0, ABSENT, (shape[0], 1, *shape[2:]), generator=generator)
    target[torch.rand(target.shape, generator=generator) < ignored] = IGNORED
    return logits, target


def by_hand(
    logits, target, *, sigmoid, include_background, batch, gamma, weight,
    lambda_dice=0.7, lambda_focal=0.3, annotated=None,
):  # fmt: skip
    """Compute the loss from lists of the pixels that are known, one class and one sample after another.

    What a sample was not annotated for is one with its background.
    """
    logits, target = logits.numpy(), target.numpy()
    samples, classes = logits.shape[:2]
    annotated = np.ones((samples, classes), bool) if annotated is None else annotated.numpy()
    e = np.exp(logits)
    probability = e / (1 + e) if sigmoid else e / e.sum(axis=1, keepdims=True)
    if not sigmoid:
        for b, c in zip(*np.nonzero(~annotated), strict=True):
            probability[b, 0] += probability[b, c]
    focal = []
    pixels = {}  # (sample, class) -> probability and truth of its known pixels
    for b in range(samples):
        for c in np.flatnonzero(annotated[b]):
            labels = target[b, c if sigmoid else 0].ravel()
            known = np.flatnonzero(labels != IGNORED)
            p = probability[b, c].ravel()[known]
            t = labels[known] == (1 if sigmoid else c)
            pixels[b, c] = p, t
            for p_class, is_class in zip(p, t, strict=True):
                p_true = p_class if is_class else 1 - p_class
                if is_class or sigmoid:  # exclusive classes: a pixel is counted at its own class
                    focal.append(-weight[c] * (1 - p_true) ** gamma * math.log(p_true))
    dice = []
    for c in range(0 if include_background else 1, classes):
        groups = [range(samples)] if batch else [[b] for b in range(samples)]
        for samples_of_class in ([b for b in group if annotated[b, c]] for group in groups):
            p = np.concatenate([pixels[b, c][0] for b in samples_of_class] or [[]])
            t = np.concatenate([pixels[b, c][1] for b in samples_of_class] or [[]]).astype(bool)
            if p.size:
                dice.append(weight[c] * (1 - (2 * p[t].sum() + 1e-5) / (p.sum() + t.sum() + 1e-5)))
    return lambda_dice * np.mean(dice) + lambda_focal * np.mean(focal)


# --- values ---


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("gamma", [0, 2.0, 1.5])
def test_equals_an_implementation_by_hand(shape, sigmoid, include_background, batch, weight, gamma):
    logits, target = example(shape, sigmoid=sigmoid)
    options = {"sigmoid": sigmoid, "include_background": include_background, "batch": batch, "gamma": gamma}
    loss = DiceFocalLoss(**options, weight=weight, ignore_index=IGNORED)(logits, target).item()
    assert loss == pytest.approx(by_hand(logits, target, **options, weight=weight or [1] * CLASSES), rel=1e-9)


#: What the samples of a batch were annotated for: each for something else, all alike, class 2 in none.
ANNOTATIONS = {
    "different": [[True, True, False, True], [True, False, True, False], [True, True, True, True]],
    "alike": [[True, False, True, True]] * 3,
    "none of class 2": [[True, True, False, False], [True, False, False, True], [True, True, False, True]],
}


def partly(name: str, shape: tuple[int, ...], *, sigmoid: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits, a target in which what was not annotated is background, and what was."""
    logits, target = example(shape, sigmoid=sigmoid)
    annotated = torch.tensor(ANNOTATIONS[name][: shape[0]])
    for b, c in (~annotated).nonzero().tolist():
        if sigmoid:
            target[b, c] = 0
        else:
            target[b][target[b] == c] = 0
    return logits, target, annotated


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("name", ANNOTATIONS)
def test_what_was_not_annotated_is_one_with_the_background_and_learns_nothing(
    shape, sigmoid, include_background, batch, name
):
    logits, target, annotated = partly(name, shape, sigmoid=sigmoid)
    options = {"sigmoid": sigmoid, "include_background": include_background, "batch": batch, "gamma": 1.5}
    logits.requires_grad_()
    loss = DiceFocalLoss(**options, weight=WEIGHT, ignore_index=IGNORED)(logits, PartialTarget(target, annotated))
    expected = by_hand(logits.detach(), target, **options, weight=WEIGHT, annotated=annotated)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    loss.backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert (logits.grad[~annotated] == 0).all()  # exactly
    if not sigmoid:
        assert (logits.grad[annotated].flatten(1).abs().amax(dim=1) > 0).all()


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("ignore_index", [None, IGNORED])
def test_samples_annotated_alike_cost_what_a_network_of_those_classes_and_the_rest_would_cost(batch, ignore_index):
    logits, target, annotated = partly("alike", SHAPES[0], sigmoid=False)
    if ignore_index is None:
        target = target.masked_fill(target == IGNORED, 0)
    kept, others = annotated[0].nonzero()[1:, 0], (~annotated[0]).nonzero()[:, 0]
    rest = logits[:, [0, *others.tolist()]].logsumexp(dim=1, keepdim=True)
    fewer = target.clone()
    for place, c in enumerate(kept.tolist(), start=1):
        fewer[target == c] = place
    options = {"batch": batch, "ignore_index": ignore_index}
    loss = DiceFocalLoss(**options, weight=WEIGHT)(logits, PartialTarget(target, annotated))
    weight = torch.tensor(WEIGHT)[[0, *kept.tolist()]]
    alone = DiceFocalLoss(**options, weight=weight)(torch.cat([rest, logits[:, kept]], dim=1), fewer)
    torch.testing.assert_close(loss, alone, rtol=1e-12, atol=0)


@pytest.mark.slow
def test_what_halves_of_the_annotations_teach_ends_at_the_true_probabilities():
    """A voxel of which nothing is seen: two halves of the samples, each annotated for one class of nested ones."""
    truth = torch.tensor([0] * 12 + [1] * 5 + [2] * 3)
    target = torch.stack([truth.where(truth != 2, 0), truth.where(truth != 1, 0)])[:, None, :, None]
    annotated = torch.tensor([[True, True, False], [True, False, True]])
    logits = torch.zeros(1, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    loss = DiceFocalLoss(lambda_dice=0, lambda_focal=1, gamma=0)
    for _ in range(2000):
        loss(logits.expand(2, 3, 20, 1), PartialTarget(target, annotated)).backward()
        with torch.no_grad():
            logits -= logits.grad
        logits.grad = None
    found = logits.softmax(dim=1).flatten().tolist()
    assert found == pytest.approx([12 / 20, 5 / 20, 3 / 20], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("batch", [False, True])
def test_a_batch_that_was_annotated_for_everything_costs_the_same_to_the_last_bit(batch, dtype):
    logits, target = example((3, CLASSES, 32, 32), sigmoid=False, ignored=0)
    loss = DiceFocalLoss(batch=batch)
    everything = PartialTarget(target, torch.ones(3, CLASSES, dtype=torch.bool))
    assert torch.equal(loss(logits.to(dtype), everything), loss(logits.to(dtype), target))


def test_annotations_of_other_classes_are_refused():
    logits, target = example(SHAPES[0], sigmoid=False)
    with pytest.raises(PyrasegError, match=r"\(3, 4\) samples and classes .* got \(3, 5\)"):
        DiceFocalLoss()(logits, PartialTarget(target, torch.ones(3, 5, dtype=torch.bool)))


def test_focal_term_with_gamma_zero_is_torchs_cross_entropy():
    logits, target = example(SHAPES[0], sigmoid=False)
    loss = DiceFocalLoss(lambda_dice=0, lambda_focal=1, gamma=0, ignore_index=IGNORED)(logits, target)
    torch.testing.assert_close(loss, F.cross_entropy(logits, target[:, 0], ignore_index=IGNORED))


def test_weighted_cross_entropy_is_torchs_sum_over_the_number_of_pixels():
    logits, target = example(SHAPES[0], sigmoid=False)
    loss = DiceCELoss(lambda_dice=0, lambda_ce=1, weight=WEIGHT, ignore_index=IGNORED)(logits, target)
    weight = torch.tensor(WEIGHT, dtype=torch.float64)
    total = F.cross_entropy(logits, target[:, 0], weight=weight, ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(loss, total / (target != IGNORED).sum())


def test_sigmoid_focal_term_is_built_on_torchs_binary_cross_entropy():
    logits, target = example(SHAPES[0], sigmoid=True, ignored=0)
    bce = F.binary_cross_entropy_with_logits(logits, target.double(), reduction="none")
    for gamma in (0, 2):
        loss = DiceFocalLoss(sigmoid=True, lambda_dice=0, lambda_focal=1, gamma=gamma)(logits, target)
        torch.testing.assert_close(loss, ((1 - (-bce).exp()) ** gamma * bce).mean())


@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("batch", [False, True])
def test_dice_term_is_monais(include_background, batch):
    logits, target = example(SHAPES[0], sigmoid=False)
    options = {"include_background": include_background, "batch": batch, "ignore_index": IGNORED}
    theirs = monai.losses.DiceLoss(
        **options, softmax=True, to_onehot_y=True, weight=WEIGHT if include_background else WEIGHT[1:]
    )(logits, target)
    ours = DiceFocalLoss(**options, lambda_dice=1, lambda_focal=0, weight=WEIGHT)(logits, target)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("include_background", [False, True])
def test_dice_and_cross_entropy_are_monais_where_everything_is_known(include_background):
    logits, target = example(SHAPES[0], sigmoid=False, ignored=0)
    options = {"include_background": include_background, "lambda_dice": 0.5, "lambda_ce": 0.5}
    theirs = monai.losses.DiceCELoss(**options, softmax=True, to_onehot_y=True)(logits, target)
    torch.testing.assert_close(DiceCELoss(**options)(logits, target), theirs)


def test_two_exclusive_classes_are_one_channel_of_binary_cross_entropy_and_dice():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 2, 7, 5, generator=generator, dtype=torch.float64)
    mask = torch.randint(0, 2, (2, 1, 7, 5), generator=generator)
    mask[0, 0, :3] = IGNORED
    known = mask != IGNORED
    difference = logits[:, 1:] - logits[:, :1]
    bce = F.binary_cross_entropy_with_logits(difference[known], mask[known].double())
    p, t = difference.sigmoid()[known], mask[known] == 1
    dice = 1 - (2 * p[t].sum() + 1e-5) / (p.sum() + t.sum() + 1e-5)
    options = {"batch": True, "ignore_index": IGNORED}
    two = DiceCELoss(include_background=False, **options)(logits, mask)
    one = DiceCELoss(sigmoid=True, **options)(difference, mask)
    torch.testing.assert_close(two, 0.5 * bce + 0.5 * dice)
    torch.testing.assert_close(one, two)


def test_equal_logits_have_a_closed_form():
    """Four classes at p = 1/4, a quarter of the pixels in each: Dice 1/4, focal (3/4)^2 log 4."""
    target = torch.arange(4).repeat_interleave(100).reshape(1, 1, 20, 20)
    loss = DiceFocalLoss()(torch.zeros(1, 4, 20, 20), target).item()
    assert loss == pytest.approx(0.7 * 0.75 + 0.3 * 0.75**2 * math.log(4), rel=1e-6)


def test_a_batch_without_foreground_has_a_closed_form():
    """At p = 1/2 everywhere: Dice of the background 1/1.5, of the absent class 0."""
    target = torch.zeros(2, 1, 16, 16, dtype=torch.long)
    loss = DiceFocalLoss(batch=True)(torch.zeros(2, 2, 16, 16), target).item()
    assert loss == pytest.approx(0.7 * (1 - 2 / 3 + 1) / 2 + 0.3 * 0.25 * math.log(2), rel=1e-6)


def test_a_confident_right_answer_costs_nothing_and_a_wrong_one_does():
    labels = torch.arange(4).reshape(1, 1, 2, 2)
    right = 50 * F.one_hot(labels[:, 0], 4).movedim(-1, 1).float()
    assert DiceFocalLoss()(right, labels).item() == pytest.approx(0, abs=1e-4)
    assert DiceFocalLoss()(right.roll(1, dims=1), labels).item() > 10


# --- ignored pixels ---


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("batch", [False, True])
def test_an_ignored_border_is_as_if_it_were_cut_off(sigmoid, batch):
    logits, target = example((2, CLASSES, 8, 9), sigmoid=sigmoid, ignored=0)
    target[:, :, 6:] = IGNORED
    target[:, :, :, :2] = IGNORED
    loss = DiceFocalLoss(sigmoid=sigmoid, batch=batch, weight=WEIGHT, ignore_index=IGNORED)
    inner = (..., slice(0, 6), slice(2, None))
    logits.requires_grad_()
    whole = loss(logits, target)
    torch.testing.assert_close(whole, loss(logits[inner], target[inner]))
    (gradient,) = torch.autograd.grad(whole, logits)
    (expected,) = torch.autograd.grad(loss(logits[inner], target[inner]), logits)
    torch.testing.assert_close(gradient, expected)
    assert not gradient[:, :, 6:].any() and not gradient[..., :2].any() and gradient[inner].all()


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("batch", [False, True])
def test_a_sample_that_is_ignored_as_a_whole_changes_nothing(sigmoid, batch):
    logits, target = example((3, CLASSES, 5, 5), sigmoid=sigmoid)
    target[1] = IGNORED
    loss = DiceFocalLoss(sigmoid=sigmoid, batch=batch, ignore_index=IGNORED)
    torch.testing.assert_close(loss(logits, target), loss(logits[[0, 2]], target[[0, 2]]))


@pytest.mark.parametrize("batch", [False, True])
def test_a_batch_that_is_ignored_as_a_whole_costs_nothing(batch):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = DiceFocalLoss(batch=batch, ignore_index=-1)(logits, torch.full((2, 1, 4, 4), -1))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_an_overlapping_class_may_be_unknown_alone():
    logits, target = example((2, CLASSES, 5, 5), sigmoid=True, ignored=0)
    target[0, 1] = IGNORED
    logits.requires_grad_()
    DiceFocalLoss(sigmoid=True, ignore_index=IGNORED)(logits, target).backward()
    assert not logits.grad[0, 1].any()
    assert logits.grad[1, 1].all() and logits.grad[0, [0, 2, 3]].all()


def test_a_class_may_be_the_one_that_is_ignored():
    logits, target = example(SHAPES[0], sigmoid=False, ignored=0)
    ignoring = DiceFocalLoss(ignore_index=2)(logits, target)
    torch.testing.assert_close(
        ignoring, DiceFocalLoss(ignore_index=IGNORED)(logits, target.where(target != 2, IGNORED))
    )


# --- gradients ---


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("gamma", [0, 1.5, 2])
def test_gradients_equal_finite_differences(sigmoid, gamma):
    logits, target = example((2, CLASSES, 3, 2), sigmoid=sigmoid)
    loss = DiceFocalLoss(sigmoid=sigmoid, gamma=gamma, weight=WEIGHT, ignore_index=IGNORED)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
@pytest.mark.parametrize("scale", [0, 1, 1e4])
def test_gradients_stay_finite_at_extreme_logits(sigmoid, gamma, scale):
    logits = (scale * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))).requires_grad_()
    target = torch.zeros(2, 3 if sigmoid else 1, 8, 8, dtype=torch.uint8)  # no foreground
    loss = DiceFocalLoss(sigmoid=sigmoid, gamma=gamma, batch=True)(logits, target)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    """300 x 300 pixels at p = 1/2 sum to 45,000 for each class and 90,000 in all; float16 ends at 65,504."""
    target = torch.zeros(1, 1, 300, 300, dtype=torch.uint8)
    loss = DiceFocalLoss(batch=True)(torch.zeros(1, 2, 300, 300, dtype=dtype), target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.7 * (1 - 2 / 3 + 1) / 2 + 0.3 * 0.25 * math.log(2), rel=1e-5)


# --- refusals ---


@pytest.mark.parametrize(
    ("options", "channels", "target_channels", "message"),
    [
        ({"weight": [1, 2]}, 3, 1, "2 class weights for 3 classes"),
        ({}, 1, 1, "sigmoid=True"),
        ({}, 3, 3, "needs a target of shape"),
        ({"sigmoid": True}, 3, 1, "needs a target of shape"),
    ],
)
def test_refuses_what_does_not_fit_together(options, channels, target_channels, message):
    loss = DiceFocalLoss(**options)
    with pytest.raises(PyrasegError, match=message):
        loss(torch.zeros(1, channels, 4, 4), torch.zeros(1, target_channels, 4, 4))


@pytest.mark.parametrize(
    "options", [{"gamma": -1}, {"lambda_dice": -0.1}, {"weight": [1, -1]}, {"weight": [1, math.inf]}, {"weight": 2.0}]
)
def test_refuses_options_without_meaning(options):
    with pytest.raises(PyrasegError):
        DiceFocalLoss(**options)
