# SPDX-License-Identifier: Apache-2.0
"""Small layers that pyramids and heads share, for 2-D and 3-D maps, and pooling and interpolation as matrices.

Matrices are computed from run-time sizes: so every exporter takes them, and graphs hold for every size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from bundle.pyraseg.core import PyrasegError

#: How the channels of a position lie together in memory, by the number of a tensor's axes.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def channels_last(network: nn.Module) -> nn.Module:
    """Lay the channels of a network's weights together in memory, of images and of volumes: fastest for convolutions.

    (`torch.nn.Module.to` takes the format of one of them, and raises an error at the other's weights.)

    Returns:
        The network itself.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() in CHANNELS_LAST:
            tensor.data = tensor.data.contiguous(memory_format=CHANNELS_LAST[tensor.dim()])
    return network


def numbered(bins: list[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for the bins of several levels in a row, the number of each within its level and its level's count."""
    numbers: list[int] = []
    counts: list[int] = []
    for count in bins:
        for number in range(count):
            numbers.append(number)
            counts.append(count)
    return torch.tensor(numbers, device=like.device), torch.tensor(counts, device=like.device)


def averaging_matrix(size: int, number: Tensor, count: Tensor, like: Tensor) -> Tensor:
    """Return the matrix that averages `size` positions into windows, as `torch.nn.AdaptiveAvgPool2d` has them.

    Args:
        size: number of positions; may be symbolic while a graph is exported.
        number, count: window i of k covers [floor(i * size / k), ceil((i + 1) * size / k)); both of shape (windows,).
        like: tensor whose device and floating type the result takes.

    Returns:
        Tensor of shape (windows, size) whose rows sum to one.
    """
    number, count = number.unsqueeze(1), count.unsqueeze(1)
    start = torch.div(number * size, count, rounding_mode="floor")
    end = torch.div((number + 1) * size + (count - 1), count, rounding_mode="floor")
    position = torch.arange(size, device=like.device)
    inside = (position >= start) & (position < end)
    return inside.to(like.dtype) / (end - start).to(like.dtype)


def interpolation_matrix(size: int, number: Tensor, count: Tensor, like: Tensor, kept: int) -> Tensor:
    """Return the matrix that upsamples values linearly, as torch.nn.functional.interpolate does (corners not aligned).

    Args:
        size: number of positions; may be symbolic while a graph is exported.
        number, count: the column of value i of k; both of shape (values,), or `count` of shape (1,).
        like: tensor whose device and floating type the result takes.
        kept: return the first `kept` positions alone.

    Returns:
        Tensor of shape (kept, values).
    """
    precise = torch.promote_types(like.dtype, torch.float32)  # a half type has no number for positions beyond 256
    middle = (2 * torch.arange(kept, device=like.device) + 1).to(precise).unsqueeze(1)
    position = (middle * count / (2 * size) - 0.5).clamp(min=0)
    distance = torch.minimum(position, (count - 1).to(precise)) - number
    return (1 - distance.abs()).clamp(min=0).to(like.dtype)


def multiply_along(axis: int, matrix: Tensor, features: Tensor) -> Tensor:
    """Multiply a matrix (rows, n) with all vectors of n values that lie along one axis of a map."""
    if axis == features.dim() - 1:
        return features @ matrix.transpose(0, 1)
    product = matrix @ features.flatten(axis + 1)
    return product.reshape((*features.shape[:axis], matrix.shape[0], *features.shape[axis + 1 :]))


class ConvNormAct(nn.Sequential):
    """Convolution without bias, normalization, ReLU; `separable` makes it a depthwise and a pointwise convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int | Sequence[int],
        norm: str | tuple,
        spatial_dims: int = 2,
        stride: int = 1,
        dilation: int = 1,
        separable: bool = False,
    ) -> None:
        convolution = Conv[Conv.CONV, spatial_dims]
        sides = ensure_tuple_rep(kernel_size, spatial_dims)
        padding = tuple(dilation * (side // 2) for side in sides)
        wide = {"kernel_size": sides, "padding": padding, "dilation": dilation, "stride": stride}
        layers: list[nn.Module] = [
            convolution(in_channels, out_channels, bias=False, **({"kernel_size": 1} if separable else wide)),
            get_norm_layer(norm, spatial_dims=spatial_dims, channels=out_channels),
            get_act_layer(("relu", {"inplace": True})),
        ]
        if separable:
            layers.insert(0, convolution(in_channels, in_channels, bias=False, groups=in_channels, **wide))
        super().__init__(*layers)


def resize(features: Tensor, like: Tensor) -> Tensor:
    """Interpolate a map linearly to the size of another; pixels are areas (corners are not aligned)."""
    mode = "trilinear" if features.dim() == 5 else "bilinear"
    return F.interpolate(features, size=like.shape[2:], mode=mode, align_corners=False)


def pad_to_multiple(image: Tensor, multiples: list[int]) -> Tensor:
    """Repeat the last row and column (and slice) of an image until all sides are multiples, one number an axis.

    Strided convolutions with TensorFlow's padding (timm's `tf_` encoders) pad one side or both, depending on whether a
    side is odd. Where training and use differ in that, every level adds half a pixel of its own to a shift of the
    result: 2 to 3 pixels at 137 x 140, measured on a network that was trained at 160 x 160. On multiples of the
    coarsest stride all sizes are alike, and maps grow back by whole factors.
    """
    padding: list[int] = []
    for axis in range(image.dim() - 1, 1, -1):
        size, multiple = image.shape[axis], multiples[axis - 2]
        # Not `-size % multiple`: for this form, `torch.export` can prove that a padded side is a whole multiple.
        padding += [0, (size + multiple - 1) // multiple * multiple - size]
    return F.pad(image, padding, mode="replicate")


def enlarge(logits: Tensor, padded: Tensor, image: Tensor) -> Tensor:
    """Interpolate logits to the size of the padded image and cut them back to the image."""
    if not torch.jit.is_scripting():  # noqa: SIM102 TorchScript leaves out a whole block, not a condition
        if torch.compiler.is_exporting():  # which cannot prove for every size that the image lies inside
            for axis in range(2, image.dim()):
                number = torch.arange(logits.shape[axis], device=logits.device)
                count = torch.full((1,), logits.shape[axis], device=logits.device)
                matrix = interpolation_matrix(padded.shape[axis], number, count, logits, kept=image.shape[axis])
                logits = multiply_along(axis, matrix, logits)
            return logits
    logits = resize(logits, padded)
    for axis in range(2, image.dim()):
        logits = logits.narrow(axis, 0, image.shape[axis])
    return logits


def check_batch(pooled: Tensor, branch: ConvNormAct) -> None:
    """Refuse a global average that a normalization cannot work on: it leaves one value a channel and image.

    Raises:
        PyrasegError: says how to go on.
    """
    norm = branch[1]
    if isinstance(norm, nn.modules.instancenorm._InstanceNorm) and pooled[0, 0].numel() == 1:
        raise PyrasegError(
            "Instance norm makes a global average zero. Use another `norm`, such as ('group', {'num_groups': 8}), "
            "or a pyramid without the pool size 1."
        )
    if norm.training and isinstance(norm, nn.modules.batchnorm._BatchNorm) and pooled[:, 0].numel() == 1:
        raise PyrasegError(
            "A batch of one image cannot train batch norm after a global average. Use a `batch_size` of at least 2 "
            "with `drop_last`, a pyramid without the pool size 1, or a `norm` such as ('group', {'num_groups': 8})."
        )


def is_exporting() -> bool:
    """Return whether the network is being traced into a graph for another runtime."""
    return torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting()


class DetailMaps(nn.Module):
    """Look at an image at full and at half resolution, for encoders that begin at a quarter.

    Args:
        in_channels: of the image.
        norm: normalization, in MONAI's notation.
        spatial_dims: 2 or 3.

    Shapes: (B, in_channels, W, H[, D]) with even sides -> (B, 16, W, H[, D]) and (B, 32, W / 2, H / 2[, D / 2]).
    """

    channels = (16, 32)

    def __init__(self, in_channels: int, *, norm: str | tuple, spatial_dims: int = 2) -> None:
        super().__init__()
        full, half = self.channels
        options = {"kernel_size": 3, "norm": norm, "spatial_dims": spatial_dims}
        self.whole = ConvNormAct(in_channels, full, **options)
        self.halved = ConvNormAct(full, half, stride=2, **options)

    def forward(self, image: Tensor) -> list[Tensor]:
        full = self.whole(image)
        return [full, self.halved(full)]
