# SPDX-License-Identifier: Apache-2.0
"""The networks that are compared: ours, and those of segmentation_models.pytorch on the same encoder and weights."""

from typing import Any

from torch import Tensor, nn

from bundle.pyraseg.networks import PartwiseNetwork, import_with_torchvision, load_weights, read_packaged_weights

smp = import_with_torchvision("segmentation_models_pytorch")


class PeerNetwork(PartwiseNetwork):
    """A network of segmentation_models.pytorch under the part names of ours, so that one plan of stages trains both.

    Its encoder is the part `encoder`, its decoder `pyramid` and its segmentation head `head`; everything but encoder
    and classes is the library's default.

    Args:
        architecture: name of the class, such as "Unet".
        encoder: timm's name of the encoder, one whose weights come with a package.
        out_channels: classes, background included.
        pretrained: whether the encoder starts from the ImageNet weights that ours starts from.
        options: further arguments of the class.

    Shapes: (B, 3, H, W), sides multiples of 32 -> logits (B, out_channels, H, W).
    """

    def __init__(
        self, architecture: str, *, encoder: str, out_channels: int = 2, pretrained: bool = True, **options: Any
    ) -> None:
        super().__init__()
        network = getattr(smp, architecture)(f"tu-{encoder}", encoder_weights=None, classes=out_channels, **options)
        if pretrained:
            load_weights(network.encoder.model, read_packaged_weights())
        self.encoder, self.pyramid, self.head = network.encoder, network.decoder, network.segmentation_head

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.pyramid(self.encoder(image)))


PEER = {
    "_target_": "benchmarks.dermoscopy.networks.PeerNetwork",
    "encoder": "@encoder",
    "out_channels": "$len(@class_names)",
    "pretrained": "@pretrained",
}
DEEPLAB = {
    "_target_": "bundle.pyraseg.networks.DeepLabV3Plus",
    "in_channels": 3,
    "out_channels": "$len(@class_names)",
    "encoder": "@encoder",
    "pretrained": "@pretrained",
    "output_stride": "@output_stride",
    "dropout": "@dropout",
}
#: Knobs that a pyramid has, and those that any network of ours has: others take them out of use.
PYRAMID_KNOBS = {"pool_sizes": None, "decoder": None, "decoder_stride": None, "bottleneck": None, "patch_stem": None}
OUR_KNOBS = PYRAMID_KNOBS | {"output_stride": None, "dropout": None}
#: Overrides of the dermoscopy config, network by network.
NETWORKS: dict[str, dict[str, Any]] = {
    "PSPNet plain": {"decoder": "plain"},
    "PSPNet fpn": {"decoder": "fpn"},
    "DeepLabV3Plus": {"network_def": DEEPLAB} | PYRAMID_KNOBS,
    "smp PSPNet depth 3": {"network_def": PEER | {"architecture": "PSPNet"}} | OUR_KNOBS,
    "smp PSPNet depth 5": {"network_def": PEER | {"architecture": "PSPNet", "encoder_depth": 5, "upsampling": 32}}
    | OUR_KNOBS,
    "smp U-Net": {"network_def": PEER | {"architecture": "Unet"}} | OUR_KNOBS,
    "smp DeepLabV3+": {"network_def": PEER | {"architecture": "DeepLabV3Plus"}} | OUR_KNOBS,
}
OURS = ("PSPNet plain", "PSPNet fpn", "DeepLabV3Plus")


def count_parameters(network: nn.Module, image: Tensor) -> int:
    """Return the number of parameters that the logits depend on: a cut encoder keeps stages that nothing runs."""
    network.zero_grad(set_to_none=True)
    network.train()(image).sum().backward()
    reached = sum(parameter.numel() for parameter in network.parameters() if parameter.grad is not None)
    network.zero_grad(set_to_none=True)
    return reached
