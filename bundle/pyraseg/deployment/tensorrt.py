# SPDX-License-Identifier: Apache-2.0
"""A network that `python -m monai.bundle trt_export` has compiled for one kind of NVIDIA GPU.

Untried: no machine with TensorRT was at hand. What is tested is what it says where something is missing.
"""

import importlib
from pathlib import Path

import torch
from torch import nn

from bundle.pyraseg.core import PyrasegError


def load_engine(path: str | Path, *, remedy: str) -> nn.Module:
    """Return the compiled network on the GPU: image (B, C, W, H) -> logits (B, classes, W, H), at the exported size.

    Args:
        path: TorchScript with a TensorRT engine.
        remedy: what a user does to get it, for the message where there is none.

    Raises:
        PyrasegError: there is no file, no GPU, or no package `torch_tensorrt`, which the engine runs in.
    """
    if not Path(path).is_file():
        raise PyrasegError(f"There is no TensorRT engine at {path}. {remedy}")
    if not torch.cuda.is_available():
        raise PyrasegError("TensorRT needs an NVIDIA GPU, and torch sees none. Leave inference_trt.json out.")
    try:
        importlib.import_module("torch_tensorrt")
    except ImportError as error:
        raise PyrasegError("The package torch_tensorrt is not installed: pip install torch-tensorrt.") from error
    return torch.jit.load(path, map_location="cuda").eval()
