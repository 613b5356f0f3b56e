# SPDX-License-Identifier: Apache-2.0
"""How a network is called in a training on a CPU: with faster gradients and, where the processor has it, bfloat16."""

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor

from bundle.pyraseg.core import PyrasegError, nearest_hint
from bundle.pyraseg.networks import FastConvolutions, FastInstanceNorm, has_bfloat16

CPU_KERNELS = ("auto", "bfloat16", "float32", "pytorch")


class TrainingInferer(SimpleInferer):
    """Call a network on a batch; on a CPU with faster kernels, maybe in bfloat16.

    Images have the gradients of `FastConvolutions`, volumes the memory format and the norm of `FastInstanceNorm`.
    Weights and logits are float32 either way. On a GPU and with `torch.compile` it is MONAI's `SimpleInferer`.

    Args:
        cpu_kernels: "bfloat16" for mixed precision by autocast, "float32", "auto" for bfloat16 where the processor has
            instructions for it and else float32, or "pytorch" for PyTorch's own kernels in float32.

    Raises:
        PyrasegError: another value.
    """

    def __init__(self, cpu_kernels: str = "auto") -> None:
        super().__init__()
        if cpu_kernels not in CPU_KERNELS:
            hint = nearest_hint(str(cpu_kernels), CPU_KERNELS)
            raise PyrasegError(f"`cpu_kernels` is {', '.join(CPU_KERNELS[:-1])} or pytorch, not {cpu_kernels!r}.{hint}")
        self.fast = cpu_kernels != "pytorch"
        self.mixed = cpu_kernels == "bfloat16" or (cpu_kernels == "auto" and has_bfloat16())

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        compiled = isinstance(network, torch._dynamo.OptimizedModule)
        if not self.fast or inputs.device.type != "cpu" or inputs.dim() not in (4, 5) or compiled:
            return super().__call__(inputs, network, *args, **kwargs)
        volumes = inputs.dim() == 5
        if volumes:
            inputs = inputs.contiguous(memory_format=torch.channels_last_3d)
        kernels = FastInstanceNorm() if volumes else FastConvolutions()
        with kernels, torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            logits = super().__call__(inputs, network, *args, **kwargs)
        return [each.float() for each in logits] if isinstance(logits, list) else logits.float()
