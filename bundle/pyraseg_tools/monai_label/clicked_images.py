# SPDX-License-Identifier: Apache-2.0
"""Images that are corrected by clicks: where a click of a client lies for the network, and the labels that follow."""

import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Self

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import TraceKeys
from torch import Tensor

from bundle.pyraseg.core import PyrasegError, Structures
from bundle.pyraseg.dicom import slice_orientation
from bundle.pyraseg.networks import ClickNetwork
from bundle.pyraseg.runtime import Corrections
from bundle.pyraseg.transforms import geometry_of

#: Slices whose features are kept at a time.
KEPT = 24


@dataclass(frozen=True)
class Asked:
    """Hold a click as a client gives it.

    Attributes:
        voxel: (column, row[, slice]) from 0, of the file that the client has of the image.
        structure: that is meant, by its place in the names of the structures.
        inside: whether the click is in it.
    """

    voxel: tuple[float, ...]
    structure: int
    inside: bool


@dataclass(frozen=True, eq=False)
class ClickGrid:
    """Say where the voxels of a client's file lie in what the network sees.

    A voxel is numbered as in its file, as 3D Slicer does: (i, j, k) is `array[i, j, k]` of a NIfTI as nibabel reads it,
    and (column, row, 0) of a photograph.

    Attributes:
        size: of the image, as it is read: (columns, rows, slices).
        planes: for each slice of the file the slice of the image that it shows, -1 for none: see `RegularGrid`.
        orientation: how the slices are turned for the network, see `slice_orientation`.
        shown: size of what the network sees, (W, H, D).
    """

    size: tuple[int, int, int]
    planes: np.ndarray
    orientation: np.ndarray
    shown: tuple[int, int, int]

    @classmethod
    def of(cls, image: MetaTensor, labels: MetaTensor) -> Self:
        """Return it for a preprocessed image.

        Args:
            image: as the network sees it, (C, W, H[, D]), slices turned and resized at most.
            labels: of it, on the grid that it was read on, (1, W', H'[, D']).
        """
        first, unturned = image.applied_operations[0], np.array([[0, 1], [1, 1], [2, 1]], float)
        if image.ndim == 3:
            width, height = map(int, first[TraceKeys.ORIG_SIZE])
            return cls((width, height, 1), np.zeros(1, int), unturned, (image.shape[1], image.shape[2], 1))
        affine = np.asarray(first[TraceKeys.EXTRA_INFO]["original_affine"])
        width, height, depth = map(int, first[TraceKeys.ORIG_SIZE])
        geometry = geometry_of(labels)
        planes = np.arange(depth)
        if geometry is not None and not geometry.is_evenly_spaced:
            planes = geometry.regular_grid().sources
        _, *shown = image.shape
        return cls((width, height, depth), planes, slice_orientation(affine), (shown[0], shown[1], shown[2]))

    def place(self, voxel: Sequence[float]) -> tuple[int, float, float]:
        """Return the slice of a voxel, and its column and row there, as the network sees it.

        Raises:
            PyrasegError: it is outside the file, or between the slices of the image.
        """
        voxel = (*voxel, 0) if len(voxel) == 2 else tuple(voxel)
        counts = (*self.size[:2], len(self.planes))
        if not all(-0.5 <= at < count - 0.5 for at, count in zip(voxel, counts, strict=True)):
            raise PyrasegError(
                f"The voxel {list(voxel)} was clicked, outside the image of {' x '.join(map(str, counts))} voxels "
                "(columns, rows, slices, each from 0). Click inside the image."
            )
        plane = round(voxel[2])
        if self.planes[plane] < 0:
            raise PyrasegError(f"Slice {plane} was clicked, where the series has no image. Click in another slice.")
        turned: list[float] = [0, 0, 0]
        source = (voxel[0], voxel[1], int(self.planes[plane]))
        for at, count, (axis, sign) in zip(source, self.size, self.orientation, strict=True):
            turned[int(axis)] = at if sign > 0 else count - 1 - at
        column, row = (
            float(np.clip((at + 0.5) * target / count - 0.5, -0.5, target - 0.5001))  # they share their edges
            for at, count, target in zip(turned, self._turned_size, self.shown[:2])  # noqa: B905 not the slices
        )
        return int(turned[2]), column, row

    def slice_of(self, number: int) -> int:
        """Return the slice of the image that is a slice of what the network sees."""
        return number if self.orientation[2, 1] > 0 else self.size[2] - 1 - number

    @property
    def _turned_size(self) -> tuple[int, int]:
        width, height = self.size[:2]
        return (width, height) if self.orientation[0, 0] == 0 else (height, width)


class Answer:
    """What the clicks of a client make of an image, request after request.

    Each request holds all clicks. Those that are new go on from the answer to the others, as in `runtime.ClickSession`;
    where clicks are missing, what they changed is taken back, with what came after them. So one history of clicks has
    one answer. New clicks in a slice are given at once, those outside of a structure last.
    """

    def __init__(self, corrections: Corrections) -> None:
        self.corrections = corrections
        self._given: list[list[tuple]] = []

    def follow(self, clicks: Sequence[tuple[int, int, float, float, bool]]) -> None:
        """Take the clicks of a request: (slice, structure, column, row, inside) as the network sees them."""
        asked = sorted(dict.fromkeys(clicks), key=lambda click: not click[4])
        while not set(itertools.chain(*self._given)) <= set(asked):
            self._given.pop()
            self.corrections.undo()
        known = set(itertools.chain(*self._given))
        new = [click for click in asked if click not in known]
        for number, structure in dict.fromkeys(map(itemgetter(0, 1), new)):
            group = [click for click in new if click[:2] == (number, structure)]
            self.corrections.correct(number, structure, [click[2:] for click in group])
            self._given.append(group)


class ClickedImage:
    """An image, what a network found in it, and what clicks made of that.

    Args:
        image: as the network sees it, (C, W, H[, D]).
        logits: of the plain network, (K, W, H[, D]).
        automatic: label values on the grid of the image, (W, H) or (W, H, D), with or without a channel in front.
        network: that clicks correct, on the device where it works.
        structures: that it finds; they do not overlap.
        to_labels: makes label values (1, W', H'[, 1]) of logits of a slice, and of the slice as the network sees it.
    """

    def __init__(
        self,
        image: MetaTensor,
        logits: Tensor,
        automatic: MetaTensor,
        network: ClickNetwork,
        structures: Structures,
        to_labels: Callable[[Tensor, MetaTensor], Tensor],
    ) -> None:
        self.automatic = automatic
        self.structures = structures
        self._flat = image.ndim == 3
        axes = 2 if self._flat else 3
        self.grid = ClickGrid.of(image, automatic if automatic.ndim > axes else automatic[None])
        self._image, self._logits, self._network, self._to_labels = image, logits, network, to_labels
        self._features: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()
        self._answers: dict[Hashable, Answer] = {}

    def labels(self, clicks: Sequence[Asked], *, about: Hashable) -> MetaTensor:
        """Return the label values of the image, as `automatic` has them, corrected by clicks.

        Slices that no click changed keep the automatic labels; nothing is tidied up in the others.

        Args:
            clicks: all that count.
            about: what they are about; the answers about different things know nothing of each other.

        Raises:
            PyrasegError: a click is outside the image.
        """
        placed = [self._placed(click) for click in clicks]
        if about not in self._answers:
            depth = self.grid.shown[2]
            corrections = Corrections(self.structures, depth, logits=self._logits_of, refine=self._refined)
            self._answers[about] = Answer(corrections)
        answer = self._answers[about]
        answer.follow(placed)
        labels = self.automatic.clone()
        for number, logits in answer.corrections.logits.items():
            found = self._to_labels(self._like_slice(torch.from_numpy(logits)), self._slice(number))
            if self._flat:
                labels[:] = found.reshape(labels.shape)
            else:
                labels[..., self.grid.slice_of(number)] = found[..., 0].reshape(labels.shape[:-1])
        return labels

    def found_at(self, voxel: Sequence[float]) -> int:
        """Return the label value that the automatic answer has at a voxel of a client."""
        self.grid.place(voxel)
        column, row = (round(at) for at in voxel[:2])
        if self._flat:
            return int(self.automatic[..., column, row])
        return int(self.automatic[..., column, row, int(self.grid.planes[round(voxel[2])])])

    def _placed(self, click: Asked) -> tuple[int, int, float, float, bool]:
        number, column, row = self.grid.place(click.voxel)
        return number, click.structure, column, row, click.inside

    def _like_slice(self, values: Tensor) -> Tensor:
        return values if self._flat else values[..., None]

    def _slice(self, number: int) -> MetaTensor:
        return self._image if self._flat else self._image[..., number : number + 1]

    def _logits_of(self, number: int) -> np.ndarray:
        logits = self._logits if self._flat else self._logits[..., number]
        return torch.as_tensor(logits).as_subclass(Tensor).float().cpu().numpy()

    def _refined(self, number: int, channel: int, prompts: np.ndarray) -> np.ndarray:
        """Return corrected log-odds, (W, H); see `Corrections`.

        Raises:
            PyrasegError: they are not finite.
        """
        device = next(self._network.parameters()).device
        logits = torch.from_numpy(self._logits_of(number))[None].to(device)
        with torch.no_grad():
            log_odds = self._network.log_odds_of(logits, torch.tensor([channel], device=device))
            features = self._features_of(number, device)
            found = self._network.refine(log_odds, *features, torch.from_numpy(prompts)[None].to(device))[0, 0]
        if not found.isfinite().all():
            raise PyrasegError("The network's correction is NaN or infinite, and makes no mask: train it again.")
        return found.cpu().numpy()

    def _features_of(self, number: int, device: torch.device) -> tuple[Tensor, Tensor]:
        features = self._features.pop(number, None)
        if features is None:
            shown = (self._image if self._flat else self._image[..., number]).as_subclass(Tensor)
            _, *found = self._network.look(shown[None].float().contiguous().to(device))
            features = (found[0], found[1])
            if len(self._features) >= KEPT:
                self._features.popitem(last=False)
        self._features[number] = features  # the newest last
        return features


def clicks_in(asked: Mapping[str, Sequence[Sequence[float]]], structure: int) -> list[Asked]:
    """Return the clicks of a request about one structure: `foreground` and `background`, as for deepgrow models."""
    return [
        Asked(tuple(voxel), structure, field == "foreground")
        for field in ("foreground", "background")
        for voxel in asked.get(field) or ()
    ]


def clicks_by_label(
    asked: Mapping[str, Sequence[Sequence[float]]], labels: Mapping[str, int], image: ClickedImage
) -> list[Asked]:
    """Return the clicks of a request about all structures: a list for each label, and `background`, as for deepedit.

    A point of the background is outside of every label that has points of its own, and of the one that the automatic
    answer found there; where both are none, of all.

    Args:
        asked: voxels of each label.
        labels: the structure of each label.
        image: that was clicked.
    """
    inside = [Asked(tuple(voxel), place, True) for name, place in labels.items() for voxel in asked.get(name) or ()]
    outside = []
    for voxel in asked.get("background") or ():
        meant = {click.structure for click in inside} | ({image.found_at(voxel)} - {0})
        outside += [Asked(tuple(voxel), place, False) for place in sorted(meant or labels.values())]
    return inside + outside
