# SPDX-License-Identifier: Apache-2.0
"""Fast gradients of convolutions against finite differences and against PyTorch's own."""

import copy
import itertools
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bundle.pyraseg.networks import DiceFocalLoss, FastConvolutions, PSPNet

GEOMETRIES = [
    (kernel, stride, dilation, same)
    for kernel, stride, dilation, same in itertools.product((3, 5), (1, 2), (1, 2, 4), (True, False))
    if same or dilation * (kernel - 1) < 9
]


def depthwise(image, weight, bias=None, *, stride, dilation, padding):
    return F.conv2d(image, weight, bias, stride, padding, dilation, len(weight))


def gradients(image, weight, bias, *, fast, **geometry):
    """Return a depthwise convolution's output and its three gradients for an output gradient that is a fixed ramp."""
    leaves = [each.clone().requires_grad_() for each in (image, weight, bias)]
    if fast:
        with FastConvolutions():
            output = depthwise(*leaves, **geometry)
    else:
        output = depthwise(*leaves, **geometry)
    ramp = torch.linspace(-1, 1, output.numel()).view(output.shape)
    return output, *torch.autograd.grad(output, leaves, ramp)


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "stride", "dilation", "same"), GEOMETRIES)
def test_gradients_are_those_of_finite_differences(kernel, stride, dilation, same):
    padding = dilation * (kernel // 2) if same else 0
    torch.manual_seed(0)
    image = torch.randn(2, 2, 9, 10, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)

    def function(image, weight):
        with FastConvolutions():
            return depthwise(image, weight, stride=stride, dilation=dilation, padding=padding)

    assert torch.autograd.gradcheck(function, (image, weight))


def check_gradients(image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, **geometry: Any) -> None:
    """Compare result and gradients with those of PyTorch, relative to the largest value of each."""
    ours, theirs = (gradients(image, weight, bias, fast=fast, **geometry) for fast in (True, False))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


@pytest.mark.parametrize(("height", "width"), [(20, 20), (21, 18), (17, 23)])
@pytest.mark.parametrize(("kernel", "stride", "dilation", "same"), GEOMETRIES)
def test_gradients_are_those_of_pytorch(kernel, stride, dilation, same, height, width):
    padding = dilation * (kernel // 2) if same else 0
    torch.manual_seed(0)
    image = torch.randn(3, 32, height, width).to(memory_format=torch.channels_last)
    weight, bias = torch.randn(32, 1, kernel, kernel), torch.randn(32)
    geometry = {"stride": stride, "dilation": dilation, "padding": padding}
    check_gradients(image, weight, bias, **geometry)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [((5, 3), (2, 1), (2, 1), (1, 2)), ((1, 7), 1, (0, 3), 1), (3, 3, 1, 1), (3, 1, 4, 1), (1, 2, 0, 1)],
)
def test_odd_geometries_are_those_of_pytorch(kernel, stride, padding, dilation):
    """Sides that differ, a stride beyond the kernel's reach, and padding beyond it."""
    torch.manual_seed(0)
    weight = nn.Conv2d(8, 8, kernel, groups=8).weight.detach()
    image, bias = torch.randn(2, 8, 16, 19), torch.randn(8)
    geometry = {"stride": stride, "dilation": dilation, "padding": padding}
    check_gradients(image, weight, bias, **geometry)


def test_in_mixed_precision_maps_are_bfloat16_and_gradients_of_weights_are_as_precise_as_their_operands():
    torch.manual_seed(0)
    image = torch.randn(4, 32, 20, 20).bfloat16()
    weight = torch.randn(32, 1, 5, 5).bfloat16().float().requires_grad_()
    with FastConvolutions(), torch.autocast("cpu", torch.bfloat16):
        output = depthwise(image, weight, stride=1, dilation=2, padding=4)
    gradient = torch.randn(output.shape).bfloat16()
    (ours,) = torch.autograd.grad(output, weight, gradient)
    exact = weight.detach().double().requires_grad_()
    reference = depthwise(image.double(), exact, stride=1, dilation=2, padding=4)
    (expected,) = torch.autograd.grad(reference, exact, gradient.double())
    assert (output.dtype, ours.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(output.double(), reference, rtol=2**-8, atol=2**-8)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-4)


def test_groups_of_another_size_stay_in_float32_and_dense_layers_do_not():
    image = torch.randn(2, 8, 9, 9)
    with FastConvolutions(), torch.autocast("cpu", torch.bfloat16):
        grouped = F.conv2d(image, torch.randn(8, 2, 3, 3), groups=4)
        dense = F.conv2d(image, torch.randn(8, 8, 1, 1))
    assert (grouped.dtype, dense.dtype) == (torch.float32, torch.bfloat16)


def gradient(network, image, *, fast=False, mixed=False):
    """Return the gradient of a loss of a copy of a network as one vector of float64."""
    network = copy.deepcopy(network).to(image.dtype)
    with FastConvolutions() if fast else nullcontext(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        logits = network(image)
    DiceFocalLoss()(logits.to(image.dtype), (image[:, :1] > 0).to(image.dtype)).backward()
    return torch.cat([parameter.grad.flatten().double() for parameter in network.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize("mixed", [False, True])
def test_a_network_has_a_gradient_as_exact_as_with_pytorch_alone(mixed):
    """Distances from the gradient in float64; statistics of batch norm make small differences large, for both."""
    torch.manual_seed(0)
    network = PSPNet(in_channels=3, out_channels=2, decoder="fpn", dropout=0.0).to(memory_format=torch.channels_last)
    image = torch.randn(8, 3, 71, 90)
    exact = gradient(network, image.double())
    ours, theirs = ((gradient(network, image, fast=fast, mixed=mixed) - exact).norm() for fast in (True, False))
    assert ours < 1.1 * theirs
