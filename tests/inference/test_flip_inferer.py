# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from monai.inferers import SimpleInferer, SliceInferer

from bundle.pyraseg.inference.inferers import FlipInferer

PLANE = [[0], [1], [0, 1]]


def ramp(images: torch.Tensor) -> torch.Tensor:
    """Return a "network" that sees the left half better: logits grow along W, whatever the image."""
    return images + torch.arange(images.shape[2]).reshape(1, 1, -1, *[1] * (images.ndim - 3))


def test_average_by_hand():
    images = torch.tensor([1.0, 5.0, 2.0]).reshape(1, 1, 3, 1)
    # Seen as it is: 1+0, 5+1, 2+2. Its mirror image 2, 5, 1 becomes 2+0, 5+1, 1+2, and back: 3, 6, 2.
    logits = FlipInferer(SimpleInferer(), flips=[[0]])(images, ramp)
    assert logits.flatten().tolist() == [2, 6, 3]


@pytest.mark.parametrize("shape", [(2, 3, 6, 4), (1, 1, 5, 7)])
def test_what_treats_both_sides_alike_is_not_changed(shape):
    images = torch.rand(shape)
    torch.testing.assert_close(FlipInferer(SimpleInferer(), flips=PLANE)(images, torch.square), images.square())


@pytest.mark.parametrize("axes", PLANE)
def test_the_average_over_all_flips_turns_with_the_image(axes):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 2, 3, padding=1)
    inferer = FlipInferer(SimpleInferer(), flips=PLANE)
    images, dims = torch.rand(1, 1, 6, 4), [axis + 2 for axis in axes]
    with torch.no_grad():
        torch.testing.assert_close(inferer(images.flip(dims), network), inferer(images, network).flip(dims))
        assert not torch.allclose(network(images.flip(dims)), network(images).flip(dims))


def test_slices_of_a_volume():
    volume = torch.rand(1, 1, 4, 3, 5)
    inferer = FlipInferer(SliceInferer(roi_size=[-1, -1], spatial_dim=2, sw_batch_size=2), flips=[[0]])
    expected = volume + torch.tensor(1.5)  # the mean of the ramp 0 to 3 and its mirror image
    torch.testing.assert_close(inferer(volume, ramp), expected)
