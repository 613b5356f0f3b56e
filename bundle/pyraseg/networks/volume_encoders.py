# SPDX-License-Identifier: Apache-2.0
"""3-D encoders of MONAI, divided into the same stem and stages as the 2-D ones.

MONAI's ResNet-18 (and 34) is not offered. Its shortcuts, of type A for these depths, concatenate `out.data`: no
gradient flows back through them, and a tracer takes that tensor for a constant, so that an exported graph adds the
shortcut of the traced example to every image. The bottleneck networks have shortcuts of type B, which are sound.
"""

from pathlib import Path

from monai.networks.nets.efficientnet import EfficientNetBNFeatures, MBConvBlock
from monai.networks.nets.resnet import ResNetFeatures
from torch import nn

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks.encoders import Encoder
from bundle.pyraseg.networks.weights import load_weights, read_weights

VOLUME_ENCODERS = ("efficientnet_b0", "resnet50")
STRIDES = [4, 8, 16, 32]


def build_volume_encoder(
    name: str, *, in_channels: int, pretrained: bool | str | Path, output_stride: int, depth: int | None
) -> Encoder:
    """Build a 3-D encoder; the arguments are those of `build_encoder`.

    Raises:
        PyrasegError: another name, weights asked for that only a file can give, or weights that do not fit.
    """
    if name not in VOLUME_ENCODERS:
        raise PyrasegError(f"The 3-D encoders are {' and '.join(VOLUME_ENCODERS)}; {name!r} is none of them.")
    if pretrained is True:
        raise PyrasegError(
            f"No weights of the 3-D {name} come with a package. Set `pretrained` to false, or to the path of a file; "
            "for resnet50, that of MedicalNet (resnet_50.pth or resnet_50_23dataset.pth)."
        )
    build = _resnet50 if name == "resnet50" else _efficientnet_b0
    network, modules, ends, channels = build(in_channels)
    if pretrained is not False:
        load_weights(network, read_weights(pretrained))
    strides = [min(stride, output_stride) for stride in STRIDES]
    encoder = Encoder(modules, ends=ends, channels=channels, strides=strides, depth=depth)
    for stage, stride in zip(encoder.stages, STRIDES, strict=False):
        if stride > output_stride:
            _dilate(stage, stride // output_stride)
    return encoder


def _resnet50(in_channels: int) -> tuple[nn.Module, dict[str, nn.Module], list[str], list[int]]:
    network = ResNetFeatures("resnet50", pretrained=False, spatial_dims=3, in_channels=in_channels)
    ends = ["layer1", "layer2", "layer3", "layer4"]
    modules = {key: getattr(network, key) for key in ["conv1", "bn1", "act", "maxpool", *ends]}
    return network, modules, ends, [256, 512, 1024, 2048]


def _efficientnet_b0(in_channels: int) -> tuple[nn.Module, dict[str, nn.Module], list[str], list[int]]:
    network = EfficientNetBNFeatures("efficientnet-b0", pretrained=False, spatial_dims=3, in_channels=in_channels)
    network.set_swish(memory_efficient=False)  # the memory-efficient one cannot be scripted or exported
    names = ["_conv_stem_padding", "_conv_stem", "_bn0", "_swish"]
    modules = {key.strip("_"): getattr(network, key) for key in names}
    modules |= {f"blocks_{key}": stack for key, stack in network._blocks.named_children()}
    return network, modules, ["blocks_1", "blocks_2", "blocks_4", "blocks_6"], [24, 40, 112, 320]


def _dilate(stage: nn.Module, rate: int) -> None:
    """Take the strides out of a stage and widen its kernels by as much, as MedicalNet and timm do."""
    for module in stage.modules():
        if isinstance(module, nn.Conv3d):
            module.stride = (1, 1, 1)
            if module.kernel_size[0] > 1:
                module.dilation = (rate,) * 3
                if module.padding != (0, 0, 0):
                    module.padding = tuple(rate * (kernel // 2) for kernel in module.kernel_size)
        if isinstance(module, MBConvBlock):  # pads by a layer of its own
            sides = [rate * (kernel // 2) for kernel in module._depthwise_conv.kernel_size for _ in range(2)]
            module._depthwise_conv_padding = nn.ConstantPad3d(sides, 0.0)
