# SPDX-License-Identifier: Apache-2.0
"""Look at an image from several sides, and see how far the answers differ."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from bundle.pyraseg.core import PyrasegError


class UncertaintyInferer(Inferer):
    """Return what an inferer does, and remember by how much other views of the same image disagree with it.

    The uncertainty of a class is 1 - the mean Dice of its mask with its masks in the other views (after Roy et al.,
    NeuroImage 2019, who compare samples of dropout), turned back, on the network's grid; that of a case is the mean
    over the classes that any view has found. A pixel that left the frame in a view counts in none of its masks. Only
    such views belong here as the training has shown.

    Args:
        inferer: applies the network; returns logits (1, C, W, H[, D]), which are handed on as they are.
        rotations: degrees, one view each, in the plane of W and H.
        flips: for each view the spatial axes along which it mirrors, counted from 0.
        dropout: number of views with dropout at work.
    """

    def __init__(
        self,
        inferer: Inferer,
        *,
        rotations: Sequence[float] = (),
        flips: Sequence[Sequence[int]] = (),
        dropout: int = 0,
    ) -> None:
        super().__init__()
        if dropout < 0:
            raise PyrasegError(f"The number of views with dropout is {dropout}: give 0 or more.")
        self.inferer = inferer
        self.rotations = list(rotations)
        self.flips = [tuple(axis + 2 for axis in axes) for axes in flips]
        self.dropout = dropout
        #: Uncertainty of each foreground class of the last image, NaN where no view has found it; None without views.
        self.of_classes: list[float] | None = None

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        def look(images: Tensor) -> Tensor:
            return self.inferer(images, network, *args, **kwargs)

        logits = look(inputs)
        if not (self.rotations or self.flips or self.dropout):
            return logits
        labels = logits.argmax(dim=1)
        dice = []
        for degrees in self.rotations:
            turned = rotate(look(rotate(inputs, degrees)).float(), -degrees)
            seen = rotate(rotate(torch.ones_like(inputs[:, :1]).float(), degrees, zeros=True), -degrees, zeros=True)
            dice.append(_dice(labels, turned.argmax(dim=1), seen[:, 0] > 0.99, logits.shape[1]))
        everywhere = torch.ones_like(labels, dtype=torch.bool)
        for dims in self.flips:
            dice.append(_dice(labels, look(inputs.flip(dims)).flip(dims).argmax(dim=1), everywhere, logits.shape[1]))
        with _dropout_at_work(network, self.dropout > 0):
            for _ in range(self.dropout):
                dice.append(_dice(labels, look(inputs).argmax(dim=1), everywhere, logits.shape[1]))
        self.of_classes = _disagreement(torch.stack(dice))
        return logits

    @property
    def of_case(self) -> float | None:
        """Return the mean uncertainty of the classes that any view has found, 0 where all agree that there is none."""
        if self.of_classes is None:
            return None
        found = [uncertainty for uncertainty in self.of_classes if not math.isnan(uncertainty)]
        return sum(found) / len(found) if found else 0.0


def rotate(images: Tensor, degrees: float, *, zeros: bool = False) -> Tensor:
    """Turn (N, C, W, H[, D]) by an angle in the plane of W and H, bilinear, about the center.

    Beyond the border its values go on, or zeros begin.
    """
    if images.ndim == 5:
        slices = images.permute(0, 4, 1, 2, 3)
        turned = rotate(slices.flatten(0, 1), degrees, zeros=zeros)
        return turned.unflatten(0, slices.shape[:2]).permute(0, 2, 3, 4, 1)
    images = convert_to_tensor(images)
    width, height = images.shape[2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # affine_grid counts from -1 to 1 along each side, the last one (H) first.
    matrix = images.new_tensor([[cos, sin * width / height, 0], [-sin * height / width, cos, 0]])
    places = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, places, padding_mode="zeros" if zeros else "border", align_corners=False)


def _dice(labels: Tensor, others: Tensor, counted: Tensor, classes: int) -> Tensor:
    """Return the Dice of every foreground class, (classes - 1,), over the pixels that count; NaN where neither is."""
    pairs = labels[counted] * classes + others[counted]
    confusion = torch.bincount(pairs.flatten(), minlength=classes**2).reshape(classes, classes).double()
    return (2 * confusion.diagonal() / (confusion.sum(dim=0) + confusion.sum(dim=1)))[1:]


def _disagreement(dice: Tensor) -> list[float]:
    """Return 1 - the mean over views of (views, classes); two views without a class agree, unless none has it."""
    return (1 - dice.nan_to_num(1.0).mean(dim=0)).masked_fill(dice.isnan().all(dim=0), math.nan).tolist()


@contextmanager
def _dropout_at_work(network: Any, wanted: bool) -> Generator[None]:
    """Put the dropout layers of a network in training mode, and back."""
    layers = [module for module in network.modules() if isinstance(module, _DropoutNd)] if wanted else []
    if wanted and not any(layer.p > 0 for layer in layers):
        raise PyrasegError("Views with dropout were asked for, but the network has none: use rotations or flips.")
    before = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.train()
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.train(training)
