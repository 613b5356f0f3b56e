# SPDX-License-Identifier: Apache-2.0
"""The networks that a task is trained with: its own, others by the same config, and one as its users train it."""

import re
from collections.abc import Mapping
from typing import Any

from benchmarks.trials import taken_out

OURS = "Pyraseg"
USERS = "smp U-Net as its users train it"
#: Names of the architectures in segmentation_models.pytorch.
PEERS = {"smp U-Net": "Unet", "smp DeepLabV3+": "DeepLabV3Plus", "smp FPN": "FPN"}
#: Networks of MONAI, for volumes in 3-D.
VOLUME_PEERS = {"DynUNet": "DynUNetPeer", "SegResNet": "SegResNetPeer"}
#: Rates that the examples of segmentation_models.pytorch begin and end with: Adam, falling along a cosine
#: (examples/binary_segmentation_intro_cpu.py and examples/camvid_segmentation_multiclass.ipynb of its repository).
FIRST_RATE, LAST_RATE = 2e-4, 1e-5
#: What stays of an augmentation that is flips alone: these, and whatever brings samples to one size and type.
SIMPLE = re.compile("Flip|Crop|Pad|EnsureType")


def networks_of(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the overrides of a task's config by the name of the network, ours first.

    Args:
        config: of the task's training, merged, as it is written.
    """
    if "patch_size" in config:
        peers = {name: f"benchmarks.hippocampus.networks.{target}" for name, target in VOLUME_PEERS.items()}
        found = {name: {"network_def": {"_target_": target, **channels(config)}} for name, target in peers.items()}
    else:
        found = {name: {"network_def": peer(config, architecture)} for name, architecture in PEERS.items()}
        found[USERS] = as_users_train(config)
    return {OURS: {}, **{name: {**taken_out(config, changed), **changed} for name, changed in found.items()}}


def channels(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every network is told, as the task's own is."""
    return {key: config["network_def"][key] for key in ("in_channels", "out_channels")}


def peer(config: Mapping[str, Any], architecture: str, *, target: str = "PeerNetwork") -> dict[str, Any]:
    """Return the definition of a network of segmentation_models.pytorch."""
    named = {"_target_": f"benchmarks.peers.{target}", "architecture": architecture}
    return {**named, "encoder": "@encoder", "pretrained": "@pretrained", **channels(config)}


def as_users_train(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the examples of segmentation_models.pytorch do otherwise than a task's config.

    Dice loss alone, Adam without weight decay, one rate for all parts from the first step on, no average of weights,
    images of 8 bits normalized by the mean and deviation of the encoder's weights, flips as the only augmentation.
    Encoder, its ImageNet weights, data, size, batches and number of samples are the task's.
    """
    rates = dict.fromkeys(("encoder", "pyramid", "head"), FIRST_RATE)
    stage = {"name": "all parts", "epoch_fraction": 1.0, "final_lr_factor": LAST_RATE / FIRST_RATE}
    found = {
        "network_def": peer(config, "Unet", target="UsersNetwork"),
        "loss": {"_target_": "benchmarks.peers.UsersLoss"},
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$@plan.parameter_groups(@network_def)"},
        "plan#stages": [{**stage, "learning_rates": rates}],
        "train#augmentation#transforms": [
            each for each in config["train"]["augmentation"]["transforms"] if SIMPLE.search(each["_target_"])
        ],
        "ema_decay": 0,
        "max_grad_norm": None,
        "distill_from": None,
        "patience": None,
    }
    if config["image_kind"] == "photograph":
        return found | {"normalization": {"_target_": "benchmarks.peers.users_normalization", "encoder": "@encoder"}}
    # Gray images of 8 bits, whose mean and deviation the library takes to be the half of their range.
    return found | {"windows": [{"center": 127.5, "width": 255}]}
