# SPDX-License-Identifier: Apache-2.0
"""Targets of overlapping regions, and the loss of them by torch and MONAI."""

import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from monai.transforms import Compose

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks import DiceCELoss, DiceFocalLoss, PartialTarget
from bundle.pyraseg.training import AugmentBatch
from bundle.pyraseg.transforms import UNKNOWN

CLASSES = ["background", "edema", "core", "enhancing"]
REGIONS = {"whole": ["edema", "core", "enhancing"], "core": ["core", "enhancing"], "enhancing": ["enhancing"]}
MEMBERS = [[1, 2, 3], [2, 3], [3]]


def drawn(**more) -> tuple[dict, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    label = torch.randint(0, 4, (2, 1, 12, 10), generator=random).float()
    return {"image": torch.rand(2, 1, 12, 10, generator=random), "label": label, **more}, label


def prepare(loss) -> AugmentBatch:
    return AugmentBatch(Compose([]), loss=loss, class_names=CLASSES, regions=REGIONS)


def masks(label: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.isin(label, torch.tensor(members)) for members in MEMBERS], dim=1).float()


def test_the_loss_is_dice_and_cross_entropy_of_each_region():
    batch, label = drawn()
    loss = DiceCELoss(sigmoid=True, batch=True)
    _, target = prepare(loss)(batch)
    assert torch.equal(target.float(), masks(label))
    logits = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(1))
    cross_entropy = F.binary_cross_entropy_with_logits(logits, masks(label))
    dice = DiceLoss(batch=True)(logits.sigmoid(), masks(label))
    assert loss(logits, target).item() == pytest.approx(0.5 * (cross_entropy + dice).item(), rel=1e-5)


def test_pixels_that_are_unknown_teach_no_region():
    batch, label = drawn()
    label[:, :, :4] = UNKNOWN
    _, target = prepare(DiceFocalLoss(sigmoid=True))(batch)
    assert (target[:, :, :4] == UNKNOWN).all() and torch.equal(target[:, :, 4:].float(), masks(label)[:, :, 4:])
    logits = torch.zeros(2, 3, 12, 10, requires_grad=True)
    DiceFocalLoss(sigmoid=True, ignore_index=UNKNOWN)(logits, target).backward()
    assert not logits.grad[:, :, :4].any() and logits.grad[:, :, 4:].all()


def test_a_case_teaches_the_regions_whose_classes_it_was_annotated_for():
    annotated = torch.tensor([[True, True, True, True], [True, False, True, True]])
    batch, _ = drawn(annotated=annotated)
    loss = DiceFocalLoss(sigmoid=True)
    _, target = prepare(loss)(batch)
    assert isinstance(target, PartialTarget) and target.annotated.tolist() == [[True] * 3, [False, True, True]]
    logits = torch.zeros(2, 3, 12, 10, requires_grad=True)
    loss(logits, target).backward()
    assert not logits.grad[1, 0].any() and all(part.any() for part in (logits.grad[0, 0], *logits.grad[1, 1:]))


def test_classes_that_exclude_each_other_are_no_loss_of_regions():
    with pytest.raises(PyrasegError, match="set loss#sigmoid to true"):
        prepare(DiceFocalLoss())
