# SPDX-License-Identifier: Apache-2.0
"""The convolution behind the pyramid: folded and plain are the same function."""

import pytest
import torch
import torch.nn.functional as F

from bundle.pyraseg.networks.heads import PyramidBottleneck, shifted_interpolation
from bundle.pyraseg.networks.pspnet import PSPNet

BINS = (1, 2, 3, 5, 7)
SIZES = [(1, 1), (1, 4), (2, 3), (5, 7), (8, 6), (16, 12), (13, 32)]


@pytest.mark.parametrize("bins", BINS)
@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 20])
def test_matrices_interpolate_as_torch_does_and_shift(size, bins):
    values = torch.randn(1, 1, bins, dtype=torch.float64)
    upsampled = F.interpolate(values, size=size, mode="linear", align_corners=False)
    expected = F.pad(upsampled, (1, 1)).unfold(-1, size, 1)[0, 0]  # what taps 0, 1 and 2 of a convolution see
    blocks = shifted_interpolation(size, [bins], values).reshape(size, bins, 3)
    torch.testing.assert_close(torch.einsum("sbi,b->is", blocks, values[0, 0]), expected, atol=1e-12, rtol=0)


def both_forms(size, dtype, *, training):
    """Return outputs and all gradients (features, levels, parameters) of both forms on one random input."""
    torch.manual_seed(0)
    layer = PyramidBottleneck(8, 3 * len(BINS), 6, norm="batch").to(dtype).train(training)
    with torch.no_grad():
        layer[1].running_mean.normal_()
    features = torch.randn(2, 8, *size, dtype=dtype)
    levels = [torch.randn(2, 3, bins, bins, dtype=dtype) for bins in BINS]
    weights = torch.randn(2, 6, *size, dtype=dtype)
    results = []
    for folded in (True, False):
        layer.folded = folded
        inputs = [tensor.clone().requires_grad_() for tensor in [features, *levels]]
        output = layer(inputs[0], inputs[1:])
        gradients = torch.autograd.grad((output * weights).sum(), [*inputs, *layer.parameters()])
        results.append((output.detach(), gradients))
    return results


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("dtype", "output_error", "gradient_error"), [(torch.float32, 1e-5, 1e-3), (torch.float64, 1e-13, 1e-11)]
)
@pytest.mark.parametrize("size", SIZES)
def test_folded_equals_plain(size, dtype, output_error, gradient_error, training):
    (folded, folded_gradients), (plain, plain_gradients) = both_forms(size, dtype, training=training)
    assert (folded - plain).abs().max() <= output_error * plain.abs().max()
    for one, other in zip(folded_gradients, plain_gradients, strict=True):
        assert (one - other).abs().max() <= gradient_error * max(1.0, other.abs().max())


@pytest.mark.parametrize("decoder", ["plain", "fpn"])
def test_folded_equals_plain_in_the_whole_network(decoder):
    network = PSPNet(pretrained=False, encoder="resnet18", decoder=decoder, bottleneck=24).eval()
    image = torch.randn(1, 3, 100, 140)
    with torch.no_grad():
        folded = network(image)
        network.head.bottleneck.folded = False
        plain = network(image)
    assert (folded - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_half_precision_keeps_the_positions():
    """Positions beyond 256 are not numbers of bfloat16: the matrices are computed in float32."""
    exact = shifted_interpolation(400, [7], torch.zeros(1))
    rounded = shifted_interpolation(400, [7], torch.zeros(1, dtype=torch.bfloat16))
    torch.testing.assert_close(rounded.float(), exact, atol=4e-3, rtol=0)
