# SPDX-License-Identifier: Apache-2.0
"""Views of an image: rotations against MONAI's, disagreement by hand."""

import math

import pytest
import torch
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer, SliceInferer
from monai.transforms import Rotate
from torch import nn
from torch.utils.data import DataLoader

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.inference.uncertainty import Uncertainty, mean_uncertainty, rotate


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


def uncertainty(images: torch.Tensor, network: nn.Module, **views: object) -> torch.Tensor:
    """Return the uncertainty of the classes of an image, from an evaluator's output; its own answer stays."""
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader([{"image": images[0]}]),
        network=network,
        inferer=SimpleInferer()
        if images.ndim == 4
        else SliceInferer(roi_size=(-1, -1), spatial_dim=2, sw_batch_size=2),
        val_handlers=[Uncertainty(**views)],
    )
    evaluator.run()
    (output,) = evaluator.state.output
    without = type(network)(bias=network.bias).eval()
    expected = without(images) if images.ndim == 4 else torch.stack([without(s) for s in images.unbind(-1)], dim=-1)
    assert torch.equal(output["pred"], expected[0])
    assert ("uncertainty" in output) == bool(views)
    return output.get("uncertainty")


def test_who_sees_the_same_from_all_sides_is_certain():
    found = uncertainty(discs(), Threshold(), flips=[[0], [1], [0, 1]])
    assert found.tolist() == [0, 0] and mean_uncertainty(found) == 0
    assert 0 < mean_uncertainty(uncertainty(discs(), Threshold(), rotations=[-10, 10])) < 0.1  # edges alone


def test_disagreement_by_hand():
    # Mirrored, the right disc (2) lies in the half that is seen well and the left one (1) in the other, where a bias
    # of 1 takes a class: as it is, the discs are 1 and 1; mirrored they are nothing and 2.
    found = uncertainty(discs(), Threshold(bias=1), flips=[[0]])
    assert found.tolist() == [1.0, 1.0] and mean_uncertainty(found) == 1.0
    # Upside down it sees the same. Of class 2: none here, some there; and none in both, which is agreement.
    assert uncertainty(discs(), Threshold(bias=1), flips=[[0], [1]]).tolist() == [0.5, 0.5]


def test_a_class_that_no_view_finds_is_not_uncertain():
    found = uncertainty(discs().clamp(max=1), Threshold(), flips=[[0]])
    assert found[0] == 0 and found[1].isnan() and mean_uncertainty(found) == 0
    found = uncertainty(torch.zeros(1, 1, 8, 8), Threshold(), flips=[[0]])
    assert found.isnan().all() and mean_uncertainty(found) == 0


def test_what_left_the_frame_is_no_disagreement():
    assert uncertainty(torch.ones(1, 1, 40, 40), Threshold(), rotations=[45])[0].item() == pytest.approx(0, abs=1e-6)


def test_dropout_works_in_its_views_alone():
    torch.manual_seed(0)
    network = Threshold(dropout=0.5).eval()
    assert mean_uncertainty(uncertainty(discs(), network, dropout=3)) > 0.1
    assert not network.dropout.training


def test_dropout_of_a_network_without_any_is_refused():
    with pytest.raises(PyrasegError, match="the network has no dropout"):
        uncertainty(discs(), Threshold(), dropout=1)
    with pytest.raises(PyrasegError, match="-1: give 0 or more"):
        Uncertainty(dropout=-1)


def test_without_views_nothing_is_known():
    assert uncertainty(discs()[..., None].expand(-1, -1, -1, -1, 3), Threshold()) is None


def test_a_volume_through_its_slices():
    volume = torch.stack([discs(), discs()], dim=-1)
    assert 0 < mean_uncertainty(uncertainty(volume, Threshold(), rotations=[10], flips=[[0]])) < 0.1
