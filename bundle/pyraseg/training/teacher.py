# SPDX-License-Identifier: Apache-2.0
"""A trained model that teaches another one: see `DistillationLoss`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bundle.pyraseg.core import ModelSettings, PyrasegError, protect
from bundle.pyraseg.networks import DeepLabV3Plus, PSPNet, VolumePSPNet, channels_last
from bundle.pyraseg.training.checkpoints import read_model

logger = logging.getLogger(__name__)

#: Networks that the settings of weights are enough to build.
NETWORKS = {network.__name__: network for network in (PSPNet, DeepLabV3Plus, VolumePSPNet)}
#: The tensor of as many values as there are classes.
CLASSIFIER = "head.classifier.1.bias"
#: Begin of the names of settings that are of the network alone: a student has its own.
OF_NETWORK = "network"


def load_teacher(
    path: str | Path | None,
    *,
    settings: ModelSettings,
    device: str | torch.device,
) -> nn.Module | None:
    """Return a trained model as a teacher, in evaluation mode; its network may be another than the student's.

    It is built from the settings that lie in its weights, which have to be those of the student's training in all but
    the network: the same classes, windows, spacing and sizes.

    Args:
        path: file of weights, such as a bundle's `models/model.pt`; None: nobody teaches.
        settings: of the training.
        device: where it computes.

    Raises:
        PyrasegError: there is no file, it does not say what it was trained with, it was trained with other settings, or
            its network is none of this bundle's.
    """
    if path is None:
        return None
    weights, trained = read_model(path, remedy="Correct distill_from.")
    protect([Path(path)])
    if trained is None:
        raise PyrasegError(
            f"{path} does not say what it was trained with, so its network cannot be built. Give distill_from weights "
            "that a training of this version wrote."
        )
    shown = {name: value for name, value in settings.values.items() if not _is_of_network(name)}
    replace(settings, values=shown, may_differ=[name for name in settings.may_differ if name in shown]).require(
        trained,
        f"The teacher {path}",
        remedy="Give distill_from a model of the same classes and images, or bring the config into the form of its "
        "training. The network alone may be another one.",
    )
    network = build_trained(path, trained, weights, knob="distill_from")
    logger.info("The training distills %s", path)
    return channels_last(network.requires_grad_(False).eval().to(device))


def take_over(teacher: nn.Module | None, *, networks: Sequence[nn.Module]) -> None:
    """Begin with the teacher's weights wherever a student has tensors of the same names and shapes.

    Args:
        teacher: what `load_teacher` returned.
        networks: of one definition, such as the trained one and the average of its weights.
    """
    if teacher is None:
        return
    own, theirs = networks[0].state_dict(), teacher.state_dict()
    same = {name: value for name, value in theirs.items() if name in own and own[name].shape == value.shape}
    for network in networks:
        network.load_state_dict(same, strict=False)
    logger.info("%d of the student's %d tensors begin as the teacher's", len(same), len(own))


def _is_of_network(name: str) -> bool:
    return name == OF_NETWORK or name.startswith(f"{OF_NETWORK}.")


def build_trained(
    path: str | Path, trained: Mapping[str, Any], weights: Mapping[str, Tensor], *, knob: str
) -> nn.Module:
    """Return the network that settings and weights of a file say, with these weights.

    Args:
        path: of the file, for messages.
        trained: the settings in it.
        weights: its state dict.
        knob: what named the file, for messages.

    Raises:
        PyrasegError: the network is none of this bundle's, or the weights are not of it.
    """
    name = trained.get(OF_NETWORK)
    if name not in NETWORKS:
        raise PyrasegError(f"{path} holds a network {name!r}, and {knob} takes those of {', '.join(NETWORKS)}.")
    prefix = f"{OF_NETWORK}."
    arguments = {key.removeprefix(prefix): value for key, value in trained.items() if key.startswith(prefix)}
    stem = [value for key, value in weights.items() if key.startswith("encoder.") and value.ndim > 1]
    if not stem or CLASSIFIER not in weights:
        raise PyrasegError(f"{path} holds no weights of a {name}. Give {knob} weights that a training wrote.")
    channels = {"in_channels": stem[0].shape[1], "out_channels": len(weights[CLASSIFIER])}
    try:
        network = NETWORKS[name](**arguments, **channels, pretrained=False)
    except TypeError as error:
        raise PyrasegError(f"The network in {path} has settings that are unknown here: {error}.") from error
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise PyrasegError(
            f"The weights in {path} do not fit the network of their own settings. Train it again, or give another "
            f"{knob}."
        ) from error
    return network
