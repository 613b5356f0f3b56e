# SPDX-License-Identifier: Apache-2.0
"""2-D convolutions for training on a CPU: the same functions as PyTorch's, with faster gradients of depthwise ones.

Most of a training step of a mobile encoder goes into gradients for which oneDNN, PyTorch's library, has no depthwise
kernel: those of dilated layers, and those of weights wider than 3 x 3. It computes them 16 channels by 16, of which it
needs the diagonal; in bfloat16 it falls back to a reference (measured on PyTorch 2.13.0, oneDNN 3.12). All of its
*forward* depthwise kernels are fast, and both gradients are depthwise convolutions, too:

- of the image: the output's gradient, with zeros between its values where the layer strides, by the mirrored weight;
- of the weight: each image by the gradient of its output, where stride and dilation change places.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

#: Kernels up to this size, without dilation, have a depthwise kernel of oneDNN for the gradient of their weight.
_SIDE_OF_ONEDNN = 3


def has_bfloat16() -> bool:
    """Return whether this processor multiplies matrices of bfloat16 by instructions of its own, AMX or AVX512-BF16."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))


class FastConvolutions(TorchFunctionMode):
    """Within this context, depthwise `torch.conv2d` has the gradients of this file; nothing else changes.

    Inside `torch.autocast("cpu", torch.bfloat16)`, depthwise maps are of bfloat16 like all others, the gradient of
    their weights is computed in the weights' own type, and convolutions in groups of another size stay in float32:
    their gradients, too, have only a reference kernel in bfloat16. Gradients of gradients are not available.
    """

    def __torch_function__(self, func: Callable, types: Iterable, args: Any = (), kwargs: dict | None = None) -> Any:
        call = _conv2d if func is torch.conv2d else func
        return call(*args, **(kwargs or {}))


def _conv2d(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    if groups == 1 or isinstance(padding, str) or image.dim() != 4:
        return F.conv2d(image, weight, bias, stride, padding, dilation, groups)
    narrow = torch.is_autocast_enabled("cpu")
    with torch.autocast("cpu", enabled=False):
        if not groups == weight.shape[0] == image.shape[1]:
            return F.conv2d(image.to(weight.dtype), weight, bias, stride, padding, dilation, groups)
        if narrow:
            image = image.to(torch.get_autocast_dtype("cpu"))
        result = _Depthwise.apply(image, weight, _pair(stride), _pair(padding), _pair(dilation))
        return result if bias is None else result + bias.to(result.dtype).view(1, -1, 1, 1)


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution of (B, C, H, W) by (C, 1, h, w)."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, stride: tuple, padding: tuple, dilation: tuple) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.geometry = stride, padding, dilation
        return F.conv2d(image, weight.to(image.dtype), None, stride, padding, dilation, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyrefly: ignore # the decorator's type
        image, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_image = image_gradient(gradient, weight, image, *ctx.geometry) if ctx.needs_input_grad[0] else None
        of_weight = weight_gradient(gradient, weight, image, *ctx.geometry) if ctx.needs_input_grad[1] else None
        return of_image, of_weight, None, None, None


def image_gradient(
    gradient: Tensor, weight: Tensor, image: Tensor, stride: tuple, padding: tuple, dilation: tuple
) -> Tensor:
    """Return the gradient of a depthwise convolution's image, in the image's type."""
    reach = [step * (side - 1) for step, side in zip(dilation, weight.shape[2:], strict=True)]
    if max(stride) > 1:
        sides = [n + 2 * pad - far for n, pad, far in zip(image.shape[2:], padding, reach, strict=True)]
        shape = (*gradient.shape[:2], *sides)
        spread = torch.empty(shape, dtype=gradient.dtype, memory_format=torch.channels_last).zero_()
        spread[:, :, :: stride[0], :: stride[1]] = gradient
        gradient = spread
    mirrored = weight.flip(2, 3).to(gradient.dtype)
    margin = [far - pad for far, pad in zip(reach, padding, strict=True)]
    outside = [max(0, -each) for each in margin]  # padding that is wider than the kernel reaches
    result = F.conv2d(gradient, mirrored, None, 1, [max(0, each) for each in margin], dilation, len(weight))
    height, width = image.shape[2:]
    return result[:, :, outside[0] : outside[0] + height, outside[1] : outside[1] + width]


def weight_gradient(
    gradient: Tensor, weight: Tensor, image: Tensor, stride: tuple, padding: tuple, dilation: tuple
) -> Tensor:
    """Return the gradient of a depthwise convolution's weight, computed and returned in the weight's type."""
    channels, _, height, width = weight.shape
    if max(height, width) <= _SIDE_OF_ONEDNN and max(dilation) == 1:
        operands = gradient.to(weight.dtype), image.to(weight.dtype), weight
        geometry = list(stride), list(padding), list(dilation), False, [0, 0], channels
        return torch.ops.aten.convolution_backward(*operands, None, *geometry, [False, True, False])[1]
    result = torch.zeros(1, channels, height, width, dtype=weight.dtype)
    for one, of_one in zip(image.split(1), gradient, strict=True):
        kernel = of_one.unsqueeze(1).to(weight.dtype)
        taps = F.conv2d(one.to(weight.dtype), kernel, None, dilation, padding, stride, channels)
        result += taps[:, :, :height, :width]  # more where the stride leaves out the last rows
    return result.transpose(0, 1)
