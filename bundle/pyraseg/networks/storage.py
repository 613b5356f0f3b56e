# SPDX-License-Identifier: Apache-2.0
"""Weights as a small file holds them: int8 with a scale for each output channel, a quarter of float32.

What is rounded is what is stored, not how a network computes: `restore` gives floating-point weights back, which load
into the network that they were trained in.
"""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor

#: How the names of the two parts of a tensor end. No layer has such a name: a program that does not know them finds
#: weights missing, and loads none that are wrong.
NUMBERS, SCALES = "#int8", "#scale"
#: Smaller tensors, and those of one axis, stay as they are, in half precision: they take little and change much.
SMALLEST = 4096


def shrink(weights: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Return weights for a small file: large tensors of int8 with their scales, all others of half precision.

    Args:
        weights: state dict, with weights of shape (outputs, ...).

    >>> small = shrink({"conv.weight": torch.linspace(-1, 1, 8192).reshape(2, 4096), "conv.bias": torch.ones(2)})
    >>> {name: value.dtype for name, value in small.items()}
    {'conv.weight#int8': torch.int8, 'conv.weight#scale': torch.float32, 'conv.bias': torch.float16}
    """
    small: OrderedDict[str, Tensor] = OrderedDict()
    for name, value in weights.items():
        if not value.is_floating_point():
            small[name] = value
        elif value.dim() < 2 or value.numel() < SMALLEST:
            small[name] = value.half()
        else:
            scales = value.float().abs().flatten(1).amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
            small[name + NUMBERS] = (value.float() / _like(scales, value)).round().to(torch.int8)
            small[name + SCALES] = scales
    _keep_metadata(weights, small)
    return small


def restore(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the floating-point weights of a file; those that `shrink` did not write are returned as they are.

    >>> weights = {"conv.weight": torch.linspace(-1, 1, 8192).reshape(2, 4096)}
    >>> bool((restore(shrink(weights))["conv.weight"] - weights["conv.weight"]).abs().max() <= 0.5 / 127)
    True
    """
    if not any(name.endswith(NUMBERS) for name in weights):
        return weights
    whole: OrderedDict[str, Tensor] = OrderedDict()
    for name, value in weights.items():
        if name.endswith(NUMBERS):
            plain = name.removesuffix(NUMBERS)
            whole[plain] = value.float() * _like(weights[plain + SCALES], value)
        elif not name.endswith(SCALES):
            whole[name] = value
    _keep_metadata(weights, whole)
    return whole


def _like(scales: Tensor, value: Tensor) -> Tensor:
    return scales.reshape(-1, *[1] * (value.dim() - 1))


def _keep_metadata(source: Mapping[str, Tensor], target: OrderedDict[str, Tensor]) -> None:
    """Take over what PyTorch keeps beside the weights of a state dict: versions of layers, and settings of ours."""
    if hasattr(source, "_metadata"):
        vars(target)["_metadata"] = source._metadata
