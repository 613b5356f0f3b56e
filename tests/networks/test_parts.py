# SPDX-License-Identifier: Apache-2.0
"""Parts of a network: what was said last about the finest name holds."""

import pytest
import torch
from torch import nn

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.networks.segmentation import PartwiseNetwork


class Network(PartwiseNetwork):
    """Parts with parts, and one without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.stem = nn.BatchNorm2d(1)
        self.encoder.stages = nn.ModuleList(nn.BatchNorm2d(1) for _ in range(3))
        self.pool = nn.AvgPool2d(2)
        self.head = nn.BatchNorm2d(1)


@pytest.fixture
def network() -> Network:
    return Network().train()


def learning(network: Network) -> set[str]:
    """Return the leaves that learn, and check that what learns is in training mode and the rest in evaluation mode."""
    leaves = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    learns = {name for name, module in leaves.items() if module.weight.requires_grad}
    assert learns == {name for name, module in leaves.items() if module.training}
    assert learns == {name for name, module in leaves.items() if module.bias.requires_grad}
    return learns


EVERYTHING = {"encoder.stem", "encoder.stages.0", "encoder.stages.1", "encoder.stages.2", "head"}


def test_a_part_holds_its_finer_parts(network):
    assert learning(network) == EVERYTHING
    network.freeze("encoder")
    assert learning(network) == {"head"}
    network.unfreeze("encoder.stages.2")
    assert learning(network) == {"head", "encoder.stages.2"}
    network.freeze("encoder.stages")
    assert learning(network) == {"head"}
    network.unfreeze("encoder")
    assert learning(network) == EVERYTHING


def test_learn_only_freezes_everything_else(network):
    network.unfreeze("encoder.stem")
    network.learn_only(["encoder.stages.1", "head"])
    assert learning(network) == {"encoder.stages.1", "head"}
    network.learn_only(["encoder"])
    assert learning(network) == EVERYTHING - {"head"}


def test_a_frozen_part_stays_in_evaluation_mode(network):
    network.freeze("encoder")
    network.unfreeze("encoder.stages.0")
    for _ in range(2):
        network.eval()
        assert not any(module.training for module in network.modules())
        network.train()
        assert learning(network) == {"encoder.stages.0", "head"}


def test_every_parameter_is_in_the_group_of_its_finest_part(network):
    groups = {group["name"]: group["params"] for group in network.parameter_groups(["encoder.stages.1", "encoder"])}
    assert {name: len(parameters) for name, parameters in groups.items()} == {
        "encoder": 6,
        "encoder.stages.1": 2,
        "head": 2,
    }
    assert {id(p) for p in groups["encoder.stages.1"]} == {id(p) for p in network.encoder.stages[1].parameters()}
    assert [group["name"] for group in network.parameter_groups()] == ["encoder", "head"]


@pytest.mark.parametrize("name", ["decoder", "encoder.stages.3", "pool", ""])
def test_an_unknown_part_is_named(network, name):
    for call in (network.freeze, network.unfreeze, lambda part: network.learn_only([part])):
        with pytest.raises(PyrasegError, match=rf"no part '{name}'.*\['encoder', 'head'\].*encoder.stages.2"):
            call(name)
    with pytest.raises(PyrasegError, match="no part"):
        network.parameter_groups([name])


def test_what_is_frozen_survives_a_copy(network):
    network.freeze("encoder")
    copied = torch.nn.Sequential(network)
    copied.train()
    assert learning(network) == {"head"}


def test_statistics_are_kept_where_weights_learn(network):
    network.learn_only(["encoder", "head"], freeze_batch_norm=["encoder.stages"])
    network.train()
    modules = dict(network.named_modules())
    assert {name for name in EVERYTHING if modules[name].weight.requires_grad} == EVERYTHING
    assert {name for name in EVERYTHING if modules[name].training} == {"encoder.stem", "head"}
    network.learn_only(["encoder"])
    assert learning(network) == EVERYTHING - {"head"}, "every stage says anew what is kept"
    with pytest.raises(PyrasegError, match="no part 'decoder'"):
        network.learn_only(["encoder"], freeze_batch_norm=["decoder"])
