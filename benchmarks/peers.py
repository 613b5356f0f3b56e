# SPDX-License-Identifier: Apache-2.0
"""Networks of segmentation_models.pytorch as the bundle's configs train them, and as the users of that library do."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.pyraseg.networks import PartwiseNetwork, import_with_torchvision, load_weights, read_packaged_weights

smp = import_with_torchvision("segmentation_models_pytorch")

#: Sides of an image that every encoder of the library takes are multiples of this.
MULTIPLE = 32


class PeerNetwork(PartwiseNetwork):
    """A network of segmentation_models.pytorch under the part names of ours, so that one plan of stages trains both.

    Its encoder is the part `encoder`, its decoder `pyramid` and its segmentation head `head`; everything but encoder,
    channels and classes is the library's default. Images of other sides than it takes are padded as ours are, by their
    last row and column, and the logits cut back.

    Args:
        architecture: name of the class, such as "Unet".
        encoder: timm's name of the encoder, one whose weights come with a package.
        in_channels: channels of the image; the first convolution of the weights is adapted to them as in ours.
        out_channels: classes, background included.
        pretrained: whether the encoder starts from the ImageNet weights that ours starts from.
        options: further arguments of the class.

    Shapes: (B, in_channels, H, W) -> logits (B, out_channels, H, W).
    """

    def __init__(
        self,
        architecture: str,
        *,
        encoder: str,
        in_channels: int = 3,
        out_channels: int = 2,
        pretrained: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        network = getattr(smp, architecture)(
            f"tu-{encoder}", encoder_weights=None, in_channels=in_channels, classes=out_channels, **options
        )
        if pretrained:
            load_weights(network.encoder.model, read_packaged_weights(encoder))
        self.encoder, self.pyramid, self.head = network.encoder, network.decoder, network.segmentation_head

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        if height % MULTIPLE or width % MULTIPLE:
            image = F.pad(image, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
        return self.head(self.pyramid(self.encoder(image)))[..., :height, :width]


class UsersNetwork(PeerNetwork):
    """A `PeerNetwork` with the channels that the library's examples give it: one for a foreground, else one a class.

    The logit z of a foreground is returned behind a zero: the softmax of both is the sigmoid of z.

    Args:
        architecture, encoder, in_channels, pretrained, options: see `PeerNetwork`.
        out_channels: classes, background included.

    Shapes: (B, in_channels, H, W) -> logits (B, out_channels, H, W).
    """

    def __init__(self, architecture: str, *, out_channels: int = 2, **options: Any) -> None:
        super().__init__(architecture, out_channels=1 if out_channels == 2 else out_channels, **options)

    def forward(self, image: Tensor) -> Tensor:
        logits = super().forward(image)
        return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


class UsersLoss(nn.Module):
    """The library's Dice loss as its examples have it: of the foreground, or with several classes of all of them.

    Shapes: logits (B, C, H, W) and class indices (B, 1, H, W) -> scalar.
    """

    def __init__(self) -> None:
        super().__init__()
        self.binary = smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True)
        self.multiclass = smp.losses.DiceLoss(smp.losses.MULTICLASS_MODE, from_logits=True)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        if input.shape[1] == 2:
            return self.binary(input[:, 1:] - input[:, :1], target)
        return self.multiclass(input, target.long())


def users_normalization(encoder: str) -> dict[str, list[float]]:
    """Return the `mean` and `std` of RGB, scaled to [0, 1], that the library gives for an encoder of timm."""
    found = smp.encoders.get_preprocessing_params(f"tu-{encoder}")
    return {key: found[key] for key in ("mean", "std")}


def count_parameters(network: nn.Module, image: Tensor) -> int:
    """Return the number of parameters that the logits depend on: a cut encoder keeps stages that nothing runs."""
    network.zero_grad(set_to_none=True)
    logits = network.train()(image)
    sum(each.sum() for each in (logits if isinstance(logits, list) else [logits])).backward()
    reached = sum(parameter.numel() for parameter in network.parameters() if parameter.grad is not None)
    network.zero_grad(set_to_none=True)
    return reached
