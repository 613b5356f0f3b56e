# SPDX-License-Identifier: Apache-2.0
"""A network for clicks whose answers are known, as an exported model."""

from dataclasses import dataclass
from pathlib import Path

import torch
from monai.transforms import Compose
from torch import Tensor, nn

from bundle.pyraseg.deployment.exporting import Parts, export
from bundle.pyraseg.deployment.recipe import Decision
from bundle.pyraseg.deployment.reference import Reference
from bundle.pyraseg.networks.clicks import ClickNetwork
from bundle.pyraseg.networks.segmentation import PartwiseNetwork
from tests.helpers.exported import PROPERTIES
from tests.helpers.onnx_paths import kind_of, network, steps


class Levels(nn.Module):
    """Put class k where the first channel is nearest to the k-th of some levels."""

    def __init__(self, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return -20 * (image[:, :1] - self.levels).square()


class Obedient(nn.Module):
    """Do what clicks say, and nothing else: the structure is where the discs are, the box fills, and all else stays.

    The features count a little, so that a wrong one shows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(900.0))

    def forward(self, log_odds: Tensor, fine: Tensor, coarse: Tensor, prompts: Tensor) -> Tensor:
        sums = [0.01 * features.mean((1, 2, 3), keepdim=True) for features in (fine, coarse)]
        said = self.weight * (prompts[:, :1] - prompts[:, 1:2] + prompts[:, 2:3]) + sums[0] - sums[1]
        return torch.where(prompts[:, 4:] > 0, log_odds + said, log_odds)


class SmallClicks(ClickNetwork):
    """A network of any kind that clicks correct, by `Obedient`."""

    def __init__(self, plain: nn.Module, *, overlapping: bool = False) -> None:
        PartwiseNetwork.__init__(self)
        self.plain, self.prompts, self.overlapping = plain, Obedient(), overlapping

    def look(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = image.mean(1, keepdim=True)
        fine, coarse = nn.functional.avg_pool2d(mean, 4), nn.functional.avg_pool2d(mean.flip(2).relu(), 8)
        return self.plain(image), fine, coarse


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
    plain: nn.Module | None = None,
    classes: int = 3,
    flips: list[list[int]] | None = None,
    decision: Decision = Decision(),  # noqa: B008 it is frozen
    **properties: str,
) -> ClickExport:
    """Export a network for clicks, of random weights unless one is given, with what is around it."""
    clicked, parts = SmallClicks(plain or network(channels, classes)).eval(), steps(preprocessing, flips)
    files = folder / "small.network.onnx", folder / "small.onnx"
    about = PROPERTIES | properties
    export(Parts(clicked, channels, classes, *parts, kind_of(preprocessing)), *files, properties=about,
           decision=decision)  # fmt: skip
    return ClickExport(files[1], clicked, Reference(clicked, *parts, decision))
