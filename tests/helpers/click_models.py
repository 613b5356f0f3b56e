# SPDX-License-Identifier: Apache-2.0
"""A small network that clicks correct, as an exported model, beside what PyTorch makes of it."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from monai.transforms import Compose

from bundle.pyraseg.deployment.agreement import Reference
from bundle.pyraseg.deployment.exporting import Parts, export
from bundle.pyraseg.deployment.recipe import Decision
from bundle.pyraseg.networks.clicks import ClickNetwork
from bundle.pyraseg.networks.pspnet import PSPNet
from tests.helpers.exported import PROPERTIES
from tests.helpers.onnx_paths import kind_of, steps


@cache
def click_network(channels: int, classes: int = 3, *, overlapping: bool = False) -> ClickNetwork:
    """Return a network of random weights, whose corrections are large."""
    torch.manual_seed(0)
    plain = PSPNet(
        in_channels=channels, out_channels=classes, encoder="tf_efficientnet_lite0", pretrained=False, depth=2,
        pool_sizes=(1, 3), bottleneck=16,
    )  # fmt: skip
    network = ClickNetwork(plain, width=8, overlapping=overlapping).eval()
    torch.nn.init.normal_(network.prompts.correction.weight, std=2)
    return network


@dataclass(frozen=True)
class ClickExport:
    """A model file, the network, and the bundle's own inference with it."""

    path: Path
    network: ClickNetwork
    reference: Reference


def export_clicks(
    folder: Path,
    preprocessing: Compose,
    *,
    channels: int,
    classes: int = 3,
    flips: list[list[int]] | None = None,
    decision: Decision = Decision(),  # noqa: B008 it is frozen
    properties: dict[str, str] | None = None,
) -> ClickExport:
    """Export a small network for clicks with what is around it."""
    network, parts = click_network(channels, classes), steps(preprocessing, flips)
    files = folder / "small.network.onnx", folder / "small.onnx"
    about = PROPERTIES | (properties or {})
    export(Parts(network, channels, classes, *parts, kind_of(preprocessing)), *files, properties=about,
           decision=decision)  # fmt: skip
    return ClickExport(files[1], network, Reference(network, *parts, decision))
