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


def fold_batch_norm(network: nn.Module, *, device: str = "cpu") -> None:
    """Multiply every batch normalization behind a convolution into its weights, on a CPU, before the first image.

    There it takes about a quarter of the time, for it is a pass of its own over each map; a GPU's time is elsewhere,
    and nothing is done. Results are the same but for rounding. The network is for evaluation alone afterwards, and has
    other parameters than its weights on disk. One that has no batch normalization stays as it is.

    How many channels a network takes is known when the first image is there: that of another library does not say it
    by any common name.

    Args:
        network: takes (B, C, H, W), or (B, C, W, H, D); changed in place when it is first called.
        device: where it runs.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    if torch.device(device).type != "cpu" or not layers:
        return
    network.eval()

    def before_the_first(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        hook.remove()
        pairs = _fold_all(module, torch.zeros(1, inputs[0].shape[1], *[SIDE] * (inputs[0].ndim - 2)))
        logger.debug("%d of %d batch normalizations are folded into convolutions", pairs, len(layers))

    hook = network.register_forward_pre_hook(before_the_first)


@torch.no_grad()
def _fold_all(network: nn.Module, image: Tensor) -> int:
    """Fold what can be folded, as an image shows it, and return how many normalizations that were."""
    pairs = _pairs(network, image)
    for convolution, layer in pairs:
        _fold(convolution, layer)
    folded = {id(layer): layer for _, layer in pairs}
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in folded:
                setattr(parent, name, _behind(child))
    return len(pairs)


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
