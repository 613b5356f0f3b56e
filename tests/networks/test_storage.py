# SPDX-License-Identifier: Apache-2.0
"""Weights stored small: a quarter of the size, rounded by half a step at most, and never taken for others."""

import io
from collections import OrderedDict

import pytest
import torch

from bundle.pyraseg.core import ModelSettings
from bundle.pyraseg.networks import PSPNet, restore, shrink
from bundle.pyraseg.training import load_model, plain_file, read_model, save_model

SETTINGS = ModelSettings({"class_names": ["background", "lesion"]}, {"class_names": "class_names"})


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return PSPNet(pretrained=False, decoder="fpn").eval()


@pytest.fixture
def stored(network, tmp_path):
    path = tmp_path / "small.pt"
    save_model(shrink(network.state_dict()), path, settings=SETTINGS)
    return path


def test_every_weight_is_within_half_a_step_of_its_channel(network):
    weights = network.state_dict()
    for name, value in restore(shrink(weights)).items():
        if not value.is_floating_point():
            assert torch.equal(value, weights[name])
            continue
        of_channel = weights[name].abs().flatten(1).amax(1) if value.dim() > 1 else weights[name].abs()
        step = (of_channel / 127).reshape(-1, *[1] * (value.dim() - 1))
        assert ((value - weights[name]).abs() <= step * 0.501 + 1e-7).all(), name


def test_a_channel_of_zeros_stays_one():
    weights = {"conv.weight": torch.cat([torch.zeros(1, 4096), torch.ones(1, 4096)])}
    assert torch.equal(restore(shrink(weights))["conv.weight"], weights["conv.weight"])


def test_the_file_is_small_and_loads_into_the_network_it_was_made_of(network, stored, tmp_path):
    save_model(network.state_dict(), tmp_path / "float.pt", settings=SETTINGS)
    assert stored.stat().st_size < 0.32 * (tmp_path / "float.pt").stat().st_size
    other = load_model(PSPNet(pretrained=False, decoder="fpn").eval(), stored, settings=SETTINGS, remedy="")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = network(image), other(image)
    assert (expected - found).abs().max() < 0.05 * expected.std()
    assert read_model(stored)[1] == SETTINGS.values


def test_a_program_that_does_not_know_them_refuses_them(network, stored):
    with pytest.raises(RuntimeError, match="Missing key"):
        network.load_state_dict(torch.load(stored, weights_only=True))


def test_a_package_gets_a_plain_file(network, stored, tmp_path):
    plain = torch.load(io.BytesIO(plain_file(stored)), weights_only=True)
    assert list(plain) == list(network.state_dict())
    PSPNet(pretrained=False, decoder="fpn").load_state_dict(plain)
    save_model(OrderedDict(network.state_dict()), tmp_path / "float.pt", settings=SETTINGS)
    assert plain_file(tmp_path / "float.pt") == (tmp_path / "float.pt").read_bytes()
