# SPDX-License-Identifier: Apache-2.0
"""The networks that are compared: ours, and those of segmentation_models.pytorch on the same encoder and weights."""

from typing import Any

PEER = {
    "_target_": "benchmarks.peers.PeerNetwork",
    "encoder": "@encoder",
    "in_channels": 3,
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
