# SPDX-License-Identifier: Apache-2.0
"""Views of an image: rotations against MONAI's, disagreement by hand."""

import math

import pytest
import torch
from monai.inferers import SimpleInferer, SliceInferer
from monai.transforms import Rotate
from torch import nn

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.inference.uncertainty import UncertaintyInferer, rotate


class Threshold(nn.Module):
    """Call pixels above 0.5 class 1 and those above 1.5 class 2, and see the left half of each image better."""

    def __init__(self, *, bias: float = 0.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.bias = bias
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = self.dropout(images.clone())
        images[:, :, images.shape[2] // 2 :] -= self.bias
        return torch.cat([torch.zeros_like(images), images - 0.5, 3 * images - 3.5], dim=1)


def discs(width: int = 64, height: int = 48) -> torch.Tensor:
    """Return (1, 1, W, H) with a disc of 1 in the left half and one of 2 in the right."""
    x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="ij")
    left, right = ((x - cx) ** 2 + (y - 24) ** 2 < 64 for cx in (18, 44))
    return (left.float() + 2 * right.float())[None, None]


@pytest.mark.parametrize("degrees", [-10, 30, 90])
def test_rotation_is_that_of_monai(degrees):
    image = discs()
    expected = Rotate(math.radians(degrees), keep_size=True, padding_mode="zeros", align_corners=False)(image[0])
    torch.testing.assert_close(rotate(image, degrees, zeros=True)[0], expected.as_tensor(), atol=1e-4, rtol=0)


def test_slices_of_a_volume_turn_alike():
    image = discs()
    volume = torch.stack([image, 2 * image], dim=-1)
    turned = rotate(volume, 15)
    assert turned.shape == volume.shape
    torch.testing.assert_close(turned[..., 1], 2 * rotate(image, 15))


def test_who_sees_the_same_from_all_sides_has_no_doubt():
    inferer = UncertaintyInferer(SimpleInferer(), flips=[[0], [1], [0, 1]])
    logits = inferer(discs(), Threshold())
    assert torch.equal(logits, Threshold()(discs()))
    assert inferer.of_classes == [0, 0] and inferer.of_case == 0
    turned = UncertaintyInferer(SimpleInferer(), rotations=[-10, 10])
    turned(discs(), Threshold())
    assert 0 < turned.of_case < 0.1  # edges alone


def test_disagreement_by_hand():
    # Mirrored, the right disc (2) lies in the half that is seen well and the left one (1) in the other, where a bias
    # of 1 takes a class: as it is, the discs are 1 and 1; mirrored they are nothing and 2.
    inferer = UncertaintyInferer(SimpleInferer(), flips=[[0]])
    labels = inferer(discs(), Threshold(bias=1)).argmax(dim=1)
    assert set(labels.unique().tolist()) == {0, 1}
    assert inferer.of_classes == [1.0, 1.0] and inferer.of_case == 1.0
    both = UncertaintyInferer(SimpleInferer(), flips=[[0], [1]])  # upside down it sees the same
    both(discs(), Threshold(bias=1))
    assert both.of_classes == [0.5, 0.5]  # lesions: none here, some there; and none in both, which is agreement


def test_a_class_that_no_view_finds_has_no_doubt_of_its_own():
    inferer = UncertaintyInferer(SimpleInferer(), flips=[[0]])
    inferer(discs().clamp(max=1), Threshold())
    assert inferer.of_classes[0] == 0 and math.isnan(inferer.of_classes[1]) and inferer.of_case == 0
    inferer(torch.zeros(1, 1, 8, 8), Threshold())
    assert all(map(math.isnan, inferer.of_classes)) and inferer.of_case == 0


def test_what_left_the_frame_is_no_disagreement():
    inferer = UncertaintyInferer(SimpleInferer(), rotations=[45])
    inferer(torch.ones(1, 1, 40, 40), Threshold())
    assert inferer.of_classes[0] == pytest.approx(0, abs=1e-6)


def test_dropout_works_in_its_views_alone():
    torch.manual_seed(0)
    network = Threshold(dropout=0.5).eval()
    inferer = UncertaintyInferer(SimpleInferer(), dropout=3)
    logits = inferer(discs(), network)
    assert torch.equal(logits, Threshold()(discs()))
    assert inferer.of_case > 0.1
    assert not network.dropout.training


def test_dropout_of_a_network_without_any_is_refused():
    with pytest.raises(PyrasegError, match="the network has none"):
        UncertaintyInferer(SimpleInferer(), dropout=1)(discs(), Threshold())
    with pytest.raises(PyrasegError, match="-1: give 0 or more"):
        UncertaintyInferer(SimpleInferer(), dropout=-1)


def test_without_views_nothing_is_known():
    inferer = UncertaintyInferer(SliceInferer(roi_size=[-1, -1], spatial_dim=2, sw_batch_size=2))
    logits = inferer(discs()[..., None].expand(-1, -1, -1, -1, 3), Threshold())
    assert logits.shape == (1, 3, 64, 48, 3) and inferer.of_classes is None and inferer.of_case is None


def test_a_volume_through_its_slices():
    volume = torch.stack([discs(), discs()], dim=-1)
    inferer = UncertaintyInferer(
        SliceInferer(roi_size=[-1, -1], spatial_dim=2, sw_batch_size=2), rotations=[10], flips=[[0]]
    )
    inferer(volume, Threshold())
    assert 0 < inferer.of_case < 0.1
