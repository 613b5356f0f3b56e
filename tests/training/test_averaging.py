# SPDX-License-Identifier: Apache-2.0
"""The average of the weights equals its closed form, survives a resume, and is the network itself when switched off."""

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from bundle.pyraseg.training.iterations import AveragedWeights


def train(network: nn.Linear, averaged: AveragedWeights, values: list[float]) -> None:
    def step(engine: Engine, value: float) -> None:
        nn.init.constant_(network.weight, value)

    engine = Engine(step)
    averaged.attach(engine)
    engine.run(values, max_epochs=1)


def test_an_iteration_keeps_a_share_of_the_average():
    network = nn.Linear(1, 1)
    nn.init.constant_(network.weight, 1.0)
    averaged = AveragedWeights(network, ema_decay=0.75)
    train(network, averaged, [2.0, 4.0])
    assert averaged.network.weight.item() == pytest.approx(0.75 * (0.75 * 1 + 0.25 * 2) + 0.25 * 4)
    assert network.weight.item() == 4


def test_an_average_goes_on_where_it_was():
    network = nn.Linear(1, 1)
    averaged = AveragedWeights(network, ema_decay=0.5)
    train(network, averaged, [3.0])
    later = nn.Linear(1, 1)
    resumed = AveragedWeights(later, ema_decay=0.5)
    resumed.load_state_dict(averaged.state_dict())
    train(later, resumed, [5.0])
    train(network, averaged, [5.0])
    assert torch.equal(resumed.network.weight, averaged.network.weight)


def test_switched_off_it_is_the_network_itself():
    network = nn.Linear(1, 1)
    averaged = AveragedWeights(network)
    train(network, averaged, [7.0])
    assert averaged.network is network and averaged.state_dict() == {}


def test_statistics_of_batch_norm_are_averaged_too():
    network = nn.BatchNorm1d(1)
    averaged = AveragedWeights(network, ema_decay=0.75)
    engine = Engine(lambda engine, mean: network.running_mean.fill_(mean))
    averaged.attach(engine)
    engine.run([2.0, 4.0], max_epochs=1)
    assert averaged.network.running_mean.item() == pytest.approx(0.75 * (0.75 * 0 + 0.25 * 2) + 0.25 * 4)
    assert not averaged.network.training
