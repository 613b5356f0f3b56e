# SPDX-License-Identifier: Apache-2.0
"""Look at an image from several sides, see how far the answers differ, and list which a person should see first."""

import logging
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.networks.utils import eval_mode
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from bundle.pyraseg.core import PyrasegError, values_of, write_csv

logger = logging.getLogger(__name__)


class Uncertainty:
    """Put into an evaluator's output by how much other views of an image disagree with its segmentation.

    The uncertainty of a class is 1 - the mean Dice of its mask with its masks in the other views (after Roy et al.,
    NeuroImage 2019, who compare samples of dropout), turned back, on the network's grid. A pixel that left the frame in
    a view counts in none of its masks. Only such views belong here as the training has shown.

    Behind the network's own answer it looks at the views through the evaluator's inferer, and adds `uncertainty` to
    the output: one value a foreground class, NaN where no view has found it; see `mean_uncertainty`. Without views
    nothing is added.

    Args:
        rotations: degrees, one view each, in the plane of W and H.
        flips: for each view the spatial axes along which it mirrors, counted from 0.
        dropout: number of views with dropout at work.
        overlapping: the network has one sigmoid a region, see `core.Structures`; the uncertainty is that of regions.
    """

    def __init__(
        self,
        *,
        rotations: Sequence[float] = (),
        flips: Sequence[Sequence[int]] = (),
        dropout: int = 0,
        overlapping: bool = False,
    ) -> None:
        if dropout < 0:
            raise PyrasegError(f"The number of views with dropout is {dropout}: give 0 or more.")
        self.rotations = list(rotations)
        self.flips = [tuple(axis + 2 for axis in axes) for axes in flips]
        self.dropout = dropout
        self.overlapping = overlapping

    def attach(self, engine: Engine) -> None:
        if self.rotations or self.flips or self.dropout:
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        output, network = engine.state.output, engine.network
        with (
            eval_mode(network),
            torch.autocast(engine.state.device.type, **engine.amp_kwargs) if engine.amp else nullcontext(),
        ):
            output["uncertainty"] = self.of_classes(
                output["image"], output["pred"], network, lambda images: engine.inferer(images, network)
            )[None]

    def of_classes(
        self, images: Tensor, logits: Tensor, network: Callable[..., Tensor], look: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the uncertainty of every foreground class, (C - 1,), or of every region, (C,).

        Args:
            images: (1, C', W, H[, D]).
            logits: what `look` returned for them, (1, C, W, H[, D]).
            network: whose dropout is put to work.
            look: applies the network to images.
        """
        labels, dice = self._labels(logits), []

        def compare(others: Tensor, counted: Tensor) -> None:
            dice.append(_dice(labels, self._labels(others), counted, logits.shape[1], overlapping=self.overlapping))

        for degrees in self.rotations:
            turned = rotate(look(rotate(images, degrees)).float(), -degrees)
            seen = rotate(rotate(torch.ones_like(images[:, :1]).float(), degrees, zeros=True), -degrees, zeros=True)
            compare(turned, seen[:, 0] > 0.99)
        everywhere = torch.ones_like(labels, dtype=torch.bool)
        for dims in self.flips:
            compare(look(images.flip(dims)).flip(dims), everywhere)
        with _dropout_at_work(network, self.dropout > 0):
            for _ in range(self.dropout):
                compare(look(images), everywhere)
        return _disagreement(torch.stack(dice))

    def _labels(self, logits: Tensor) -> Tensor:
        """Return the label values (N, ...) int64 of logits (N, C, ...)."""
        if not self.overlapping:
            return logits.argmax(dim=1)
        values = torch.zeros_like(logits[:, 0], dtype=torch.int64)
        for place in range(logits.shape[1]):
            values += (logits[:, place] > 0).long() << place
        return values


def mean_uncertainty(of_classes: Tensor) -> float:
    """Return the uncertainty of a case: the mean over the classes that any view has found, 0 where there is none.

    >>> mean_uncertainty(torch.tensor([0.25, float("nan"), 0.75]))
    0.5
    """
    mean = of_classes.nanmean().item()
    return 0.0 if math.isnan(mean) else mean


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


def _dice(labels: Tensor, others: Tensor, counted: Tensor, channels: int, *, overlapping: bool) -> Tensor:
    """Return the Dice of every foreground class, or region, over the pixels that count; NaN where neither is."""
    values = 2**channels if overlapping else channels
    pairs = labels[counted] * values + others[counted]
    confusion = torch.bincount(pairs.flatten(), minlength=values**2).reshape(values, values).double()
    dice = []
    for number in range(1, channels + overlapping):
        there = values_of(number, channels, overlapping=overlapping)
        dice.append(2 * confusion[there][:, there].sum() / (confusion[there].sum() + confusion[:, there].sum()))
    return torch.stack(dice)


def _disagreement(dice: Tensor) -> Tensor:
    """Return 1 - the mean over views of (views, classes); two views without a class agree, unless none has it."""
    return (1 - dice.nan_to_num(1.0).mean(dim=0)).masked_fill(dice.isnan().all(dim=0), math.nan)


@contextmanager
def _dropout_at_work(network: Any, wanted: bool) -> Generator[None]:
    """Put the dropout layers of a network in training mode, and back."""
    layers = [module for module in network.modules() if isinstance(module, _DropoutNd)] if wanted else []
    if wanted and not any(layer.p > 0 for layer in layers):
        raise PyrasegError("Views with dropout were requested, but the network has no dropout: use rotations or flips.")
    before = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.train()
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.train(training)


class ReviewList:
    """Write `review.csv` with the inputs in the order of their uncertainty, the most uncertain first.

    It reads what `Uncertainty` puts into the output.

    Args:
        output_dir: folder of the file.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.path = Path(output_dir) / "review.csv"

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self)

    def start(self, engine: Engine) -> None:
        """Forget the inputs of a run before."""
        self.uncertainties: dict[str, float] = {}

    def add(self, engine: Engine) -> None:
        """Remember the uncertainty of the input of an iteration; one that failed has left nothing."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            self.uncertainties[item["name"]] = mean_uncertainty(output["uncertainty"])

    def __call__(self, engine: Engine) -> None:
        order = sorted(self.uncertainties, key=self.uncertainties.__getitem__, reverse=True)
        rows = [{"case": name, "uncertainty": self.uncertainties[name]} for name in order]
        write_csv(self.path, ["case", "uncertainty"], rows)
        logger.info("Review %s first; the order of all cases is in %s", ", ".join(order[:3]) or "nothing", self.path)
