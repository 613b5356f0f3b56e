# SPDX-License-Identifier: Apache-2.0
"""PSPNet runs at any size, scripts, and keeps frozen parts still."""

import pytest
import torch

from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.networks.pspnet import PSPNet


@pytest.fixture(scope="module")
def network():
    return PSPNet(out_channels=5, pretrained=False, bottleneck=32)


@pytest.mark.parametrize("size", [(33, 47), (64, 64), (160, 113)])
def test_logits_have_the_size_of_the_image(network, size):
    assert network.eval()(torch.randn(1, 3, *size)).shape == (1, 5, *size)


def test_scripted_equals_eager(network):
    scripted = torch.jit.script(network.eval())
    image = torch.randn(2, 3, 70, 91)
    torch.testing.assert_close(scripted(image), network(image))


def test_frozen_parts_keep_parameters_and_statistics(network):
    network.learn_only(["pyramid", "head"])
    optimizer = torch.optim.AdamW(network.parameter_groups(), lr=0.1, weight_decay=0.1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for _ in range(2):
        network.train()  # as a trainer does in every iteration
        optimizer.zero_grad(set_to_none=True)
        network(torch.randn(2, 3, 64, 64)).square().mean().backward()
        optimizer.step()
    changed = {name.partition(".")[0] for name, value in network.state_dict().items() if not value.equal(before[name])}
    assert changed == {"pyramid", "head"}
    network.learn_only(network.part_names())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network.train().encoder.training


def test_every_parameter_is_in_exactly_one_group(network):
    grouped = [id(p) for group in network.parameter_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters())


def test_an_unknown_part_is_named(network):
    with pytest.raises(PyrasegError, match=r"no part decoder.*encoder.*pyramid.*head"):
        network.learn_only(["decoder"])
