# SPDX-License-Identifier: Apache-2.0
"""How a training calls its network on a CPU."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks import PSPNet
from bundle.pyraseg.training import CPU_KERNELS, TrainingInferer


@pytest.fixture
def network():
    torch.manual_seed(0)
    return PSPNet(in_channels=3, out_channels=2, decoder="fpn", dropout=0.0).train()


@pytest.fixture
def image():
    return torch.randn(8, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_each_setting_gives_the_logits_of_the_network_in_float32(network, image):
    expected = copy.deepcopy(network)(image)
    found = {name: TrainingInferer(name)(image, copy.deepcopy(network)) for name in CPU_KERNELS}
    assert {logits.dtype for logits in found.values()} == {torch.float32}
    assert found["pytorch"].equal(expected)
    torch.testing.assert_close(found["float32"], expected, rtol=1e-3, atol=1e-3)
    mixed = (found["bfloat16"] - expected).norm() / expected.norm()
    assert 0 < mixed < 0.15
    assert found["auto"].equal(found["bfloat16"] if TrainingInferer().mixed else found["float32"])


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="the kernel does not list what its processor can do")
def test_auto_is_bfloat16_where_the_kernel_says_that_the_processor_has_it():
    flags = re.findall(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert TrainingInferer().mixed is bool({"amx_bf16", "avx512_bf16"} & set(flags[0].split() if flags else []))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_every_parameter_has_a_gradient_like_that_of_pytorch(network, image, name):
    gradients = []
    for setting in ("pytorch", name):
        own = copy.deepcopy(network)
        TrainingInferer(setting)(image, own).square().mean().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in own.parameters()]))
        assert all(parameter.dtype == parameter.grad.dtype == torch.float32 for parameter in own.parameters())
    assert torch.cosine_similarity(*gradients, dim=0) > (0.9999 if name == "float32" else 0.95)


@pytest.mark.slow
def test_the_network_is_left_as_it_is(network, image):
    """State dict, and the graph that TorchScript makes of a network that was trained."""
    names = list(network.state_dict())
    before = torch.jit.script(network.eval())
    TrainingInferer("bfloat16")(image, network).mean().backward()
    after = torch.jit.script(network.eval())
    assert list(network.state_dict()) == names
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32, torch.int64}
    assert after.code == before.code


def test_two_outputs_are_both_float32(image):
    network = PSPNet(in_channels=3, out_channels=2, pretrained=False, auxiliary=True).train()
    logits = TrainingInferer("bfloat16")(image, network)
    assert [each.dtype for each in logits] == [torch.float32] * 2


def test_compiled_networks_are_called_as_they_are(image):
    layer = nn.Conv2d(3, 3, 5, groups=3)
    compiled = torch.compile(layer, backend="eager")
    assert TrainingInferer("bfloat16")(image, compiled).equal(layer(image))


def test_a_wrong_setting_names_the_nearest():
    with pytest.raises(PyrasegError, match=r"cpu_kernels.*'bfloat'.*bfloat16"):
        TrainingInferer("bfloat")
