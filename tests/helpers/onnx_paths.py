# SPDX-License-Identifier: Apache-2.0
"""Small networks, and what configs put around them."""

from functools import cache

import torch
from monai.inferers import Inferer, SimpleInferer, SliceInferer, SlidingWindowInferer
from monai.transforms import Activationsd, Compose, NormalizeIntensityd
from torch import Tensor, nn

from bundle.pyraseg.deployment.recipe import Recipe, read_recipe
from bundle.pyraseg.inference.inferers import FlipInferer, FrugalInferer
from bundle.pyraseg.transforms.postprocessing import InvertArgmaxd, TidyLabelsd
from bundle.pyraseg.transforms.resampling import ResampleSlicesd, ResizePhotographd
from bundle.pyraseg.transforms.slices import DropSliceAxisd, OrientSlicesd, StackContextSlicesd
from bundle.pyraseg.transforms.windowing import Windowd

WINDOWS = [{"center": 90, "width": 180}, "soft_tissue", {"center": 0, "width": 1000}]


class Convolutions(nn.Module):
    """A network that sees along rows otherwise than along columns, so that nothing swapped or mirrored passes."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 8, (3, 7), padding=(1, 3))
        self.last = nn.Conv2d(8, classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.first(image).relu())


@cache
def network(channels: int, classes: int = 3) -> Convolutions:
    torch.manual_seed(0)
    return Convolutions(channels, classes).eval()


def volume(*windows: object, context_slices: int = 0, output_range: tuple[float, float] = (-1, 1)) -> Compose:
    return Compose(
        [
            Windowd("image", windows=list(windows), output_range=output_range),
            OrientSlicesd("image"),
            ResampleSlicesd("image", spacing=1.7),
            StackContextSlicesd("image", context_slices=context_slices),
        ]
    )


def projection(*windows: object) -> Compose:
    resize = ResizePhotographd("image", size=(64, 48))
    return Compose([DropSliceAxisd("image"), Windowd("image", windows=list(windows)), resize])


def photograph(size: tuple[int, int] = (64, 48)) -> Compose:
    normalize = NormalizeIntensityd("image", subtrahend=[120, 110, 100], divisor=[50, 60, 70], channel_wise=True)
    return Compose([DropSliceAxisd("image"), ResizePhotographd("image", size=size), normalize])


def inferer(preprocessing: Compose, flips: list[list[int]]) -> Inferer:
    volumes = kind_of(preprocessing) == "volume"
    inner = SliceInferer(roi_size=(-1, -1), spatial_dim=2, sw_batch_size=2) if volumes else SimpleInferer()
    return FrugalInferer(FlipInferer(inner, flips=flips))


def kind_of(preprocessing: Compose) -> str:
    """Return the kind of image of one of the chains above."""
    steps = {type(step) for step in preprocessing.transforms}
    return "volume" if OrientSlicesd in steps else "projection" if Windowd in steps else "photograph"


def recipe_of(preprocessing: Compose, inferer: Inferer, postprocessing: Compose) -> Recipe:
    return read_recipe(preprocessing, inferer, postprocessing, kind_of(preprocessing))


def after(preprocessing: Compose, tidy: TidyLabelsd | None = None) -> Compose:
    argmax = InvertArgmaxd("pred", transform=preprocessing, orig_keys="image")
    return Compose([Activationsd("pred", softmax=True), argmax, *([] if tidy is None else [tidy])])


def steps(
    preprocessing: Compose, flips: list[list[int]] | None = None, tidy: TidyLabelsd | None = None
) -> tuple[Compose, Inferer, Compose]:
    return preprocessing, inferer(preprocessing, flips or []), after(preprocessing, tidy)


def tiled(preprocessing: Compose, flips: list[list[int]], **options: object) -> tuple[Compose, Inferer, Compose]:
    """Return steps that give the network overlapping tiles of a photograph."""
    tiles = {"roi_size": (24, 20), "sw_batch_size": 3, "overlap": 0.4, "mode": "gaussian", **options}
    inner = FrugalInferer(FlipInferer(SlidingWindowInferer(**tiles), flips=flips))
    return preprocessing, inner, after(preprocessing)
