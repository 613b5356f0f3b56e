# SPDX-License-Identifier: Apache-2.0
"""Batch normalization in the weights of convolutions computes what it computed by itself."""

import copy

import pytest
import torch
from torch import nn

from bundle.pyraseg.networks import DeepLabV3Plus, PSPNet, fold_batch_norm
from tests.helpers.network_tests import randomize_statistics, relative_error

ENCODERS = ["tf_efficientnet_lite0", "mobilenetv3_large_100", "resnet18", "efficientnet_b0", "regnety_002"]


def normalizations(network: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("kind", [PSPNet, DeepLabV3Plus])
def test_a_folded_network_gives_the_same_logits(kind: type, encoder: str) -> None:
    torch.manual_seed(0)
    network = kind(spatial_dims=2, in_channels=9, out_channels=5, encoder=encoder, pretrained=False)
    randomize_statistics(network)
    network.eval()
    folded = copy.deepcopy(network)
    fold_batch_norm(folded)
    images = torch.randn(2, 9, 97, 130)
    with torch.no_grad():
        assert relative_error(folded(images), network(images)) < 1e-4
    assert normalizations(folded) <= 1  # that of a bottleneck which folds its pyramid


def test_what_two_layers_read_is_not_folded() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.norm(self.first(self.first(image)))

    network = Shared().eval()
    fold_batch_norm(network)
    network(torch.zeros(1, 2, 8, 8))
    assert normalizations(network) == 1


def test_on_a_gpu_a_network_stays_as_it_is() -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    fold_batch_norm(network, device="cuda:0")
    network(torch.zeros(1, 2, 8, 8))
    assert normalizations(network) == 1
