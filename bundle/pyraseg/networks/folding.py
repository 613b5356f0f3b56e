# SPDX-License-Identifier: Apache-2.0
"""A network without its batch normalizations: on a CPU, convolutions had better take their factors, in evaluation."""

import logging

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

logger = logging.getLogger(__name__)

#: Pixels along a side of the image, or the volume, that shows which normalization follows which convolution.
SIDE = 64


@torch.no_grad()
def fold_batch_norm(network: nn.Module, *, in_channels: int, device: str = "cpu") -> None:
    """Multiply every batch normalization behind a convolution into its weights, in place, on a CPU.

    There it takes about a quarter of the time, for it is a pass of its own over each map; a GPU's time is elsewhere,
    and nothing is done. Results are the same but for rounding. The network is for evaluation alone afterwards, and has
    other parameters than its weights on disk. One that has no batch normalization stays as it is.

    Args:
        network: takes (1, in_channels, H, W), or (1, in_channels, W, H, D) where its convolutions have three axes.
        in_channels: channels of its input.
        device: where it runs.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    if torch.device(device).type != "cpu" or not layers:
        return
    network.eval()
    axes = max((layer.weight.ndim - 2 for layer in network.modules() if isinstance(layer, _ConvNd)), default=2)
    pairs = _pairs(network, torch.zeros(1, in_channels, *[SIDE] * axes))
    for convolution, layer in pairs:
        _fold(convolution, layer)
    folded = {id(layer): layer for _, layer in pairs}
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in folded:
                setattr(parent, name, _behind(child))
    logger.debug("%d of %d batch normalizations are folded into convolutions", len(pairs), len(layers))


def _pairs(network: nn.Module, image: Tensor) -> list[tuple[_ConvNd, _BatchNorm]]:
    """Return the normalizations of a network that are called once with what a convolution returned in its only call."""
    made: dict[int, tuple[_ConvNd, Tensor]] = {}  # the tensors are kept, lest another one takes their id
    taken: list[tuple[_ConvNd, _BatchNorm]] = []
    calls: dict[int, int] = {}

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[id(module)] = calls.get(id(module), 0) + 1
        if isinstance(module, _ConvNd):
            made[id(output)] = module, output
        elif isinstance(module, _BatchNorm) and id(inputs[0]) in made:
            taken.append((made[id(inputs[0])][0], module))

    hooks = [
        module.register_forward_hook(after) for module in network.modules() if isinstance(module, _ConvNd | _BatchNorm)
    ]
    try:
        network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return [pair for pair in taken if all(calls[id(module)] == 1 for module in pair)]


def _fold(convolution: _ConvNd, layer: _BatchNorm) -> None:
    assert layer.running_mean is not None and layer.running_var is not None
    factor = (layer.running_var.double() + layer.eps).rsqrt()
    offset = -layer.running_mean.double()
    if convolution.bias is not None:
        offset += convolution.bias.double()
    if layer.affine:
        factor *= layer.weight.double()
    bias = offset * factor + (layer.bias.double() if layer.affine else 0)
    shape = (-1, *(1 for _ in convolution.weight.shape[1:]))
    dtype, learns = convolution.weight.dtype, convolution.weight.requires_grad
    weight = (convolution.weight.double() * factor.reshape(shape)).to(dtype)
    convolution.weight = nn.Parameter(weight, requires_grad=learns)
    convolution.bias = nn.Parameter(bias.to(dtype), requires_grad=learns)


def _behind(layer: nn.Module) -> nn.Module:
    """Return what a normalization does besides: timm's have dropping and activation in them."""
    inside = [part for _, part in layer.named_children() if not isinstance(part, nn.Identity)]
    return inside[0] if len(inside) == 1 else nn.Sequential(*inside)
