# SPDX-License-Identifier: Apache-2.0
"""Correct the answer for one image, click by click, and take clicks back."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.runtime.click_model import ClickModel, Looked
from bundle.pyraseg.runtime.corrections import Corrections
from bundle.pyraseg.runtime.guard import Watch
from bundle.pyraseg.runtime.images import Labels, open_image, tidied
from bundle.pyraseg.runtime.prompts import Click
from bundle.pyraseg.runtime.resampling import enlarged
from bundle.pyraseg.runtime.volume_labels import labels_of, sigmoid, softmax

#: Slices of a series whose features are kept at a time.
KEPT = 24
#: The corners of a box, (column, row, column, row).
Box = Sequence[float]


class ClickSession:
    """One image, the automatic answer for it, and corrections of that.

    The network looks at each slice once. A click, or a box, costs what corrects one structure of one slice. Where
    nothing was clicked the labels are those of `segment`; of slices with a correction they are what the network makes
    of it, and nothing is tidied up there, so that nothing that somebody clicked is removed again.

    Clicks are in pixels of the image as it is shown and stored, (column, row), the center of the first one at (0, 0).

    In a series a click goes on to neighboring slices, as `Corrections` says. A box stays in its slice.

    Args:
        model: that takes clicks.
        image: a path, or the files of a DICOM series, as `find_inputs` gives them.
        select, refuse, unlike, name: see `segment`.

    Attributes:
        shape: slices, rows, columns.
        clicks, boxes: how many were given, without those that were taken back.

    Raises:
        PyrasegError: see `segment`.
    """

    def __init__(
        self,
        model: ClickModel,
        image: str | Sequence[str],
        *,
        select: Mapping[str, object] | None = None,
        refuse: Sequence[str] | None = None,
        unlike: str = "warn",
        name: str = "The image",
    ) -> None:
        self.model = model
        self._opened = open_image(model, image, select=select, refuse=refuse)
        self.shape, self._turn = self._opened.shape, self._opened.turn
        self._watch = Watch(model.guard, unlike, name=name)
        self._looks: OrderedDict[int, Looked] = OrderedDict()
        self._corrections = Corrections(
            model.structures,
            self.shape[0],
            logits=lambda number: self._look(number).logits,
            refine=lambda number, channel, prompts: model.refine(self._look(number), channel, prompts),
        )
        self._feeds = list(self._opened.feeds())
        planes = {self._place_of(plane) for plane in self._watch.planes(len(self._feeds))}
        automatic, entropies = [], []
        for number in range(len(self._feeds)):
            looked = self._look(number)
            if number in planes:
                self._watch.see(looked.shown)
            automatic.append(self._turn.back(looked.classes))
            entropies.append(entropy(looked.logits, overlapping=model.structures.overlapping))
        self._watch.judge()
        #: Mean entropy of the automatic answer, in bits a pixel: 0 where the network is sure.
        self.uncertainty = float(np.mean(entropies))
        found = self._opened.labels(iter(automatic))
        self._automatic = list(tidied(model, found)) if model.tidying else automatic
        self._labels = list(self._automatic)

    @property
    def clicks(self) -> int:
        return self._corrections.clicks

    @property
    def boxes(self) -> int:
        return self._corrections.boxes

    def labels(self, number: int = 0) -> np.ndarray:
        """Return the label value of each pixel of a slice, (rows, columns) uint8."""
        return self._labels[number]

    def pixels(self, number: int = 0) -> np.ndarray:
        """Return a slice as it is stored: (rows, columns) float32, rescaled, or RGB (rows, columns, 3) uint8."""
        image = self._feeds[number]["image"][0]
        if image.dtype == np.uint8:
            return image
        return self._turn.back(image[len(image) // 2])

    @property
    def inverted(self) -> bool:
        """Return whether the smallest value is meant to be shown white."""
        return bool(np.any(self._feeds[0].get("inverted", False)))

    def result(self) -> Labels:
        """Return the labels of all slices, for the writers."""
        return replace(self._opened.labels(iter(self._labels)), watch=self._watch)

    def refine(
        self,
        clicks: Sequence[Click] = (),
        *,
        box: Box | None = None,
        structure: int = 1,
        number: int = 0,
        spread: bool = True,
    ) -> list[int]:
        """Add clicks, or a box, for a structure of a slice, and return the slices that have other labels now.

        Args:
            clicks: (column, row, whether it is inside of the structure), in pixels of the slice.
            box: around the structure, two opposite corners; it takes the place of an earlier one.
            structure: its place in `model.structures.names`.
            number: of the slice, from 0.
            spread: go on to the neighboring slices.

        Raises:
            PyrasegError: there is neither a click nor a box, no such slice or structure, or one is outside the image.
        """
        names = self.model.structures.names
        if not clicks and box is None:
            raise PyrasegError("There is nothing to correct by: give clicks or a box.")
        if not 0 <= number < self.shape[0]:
            raise PyrasegError(f"There is no slice {number + 1}: the image has {self.shape[0]}.")
        if not 1 <= structure < len(names):
            raise PyrasegError(f"There is no structure {structure}: the model finds {', '.join(names[1:])}.")
        size = self._look(number).logits.shape[1:]
        added = [(*self._on_grid(column, row, size), bool(inside)) for column, row, inside in clicks]
        drawn = None if box is None else self._box_on_grid(box, size)
        changed = self._corrections.correct(number, structure, added, drawn, spread=spread)
        self._relabel(changed)
        return changed

    def undo(self) -> list[int]:
        """Take back what was given last, and return the slices that have other labels now; none where nothing was."""
        changed = self._corrections.undo()
        self._relabel(changed)
        return changed

    def _look(self, number: int) -> Looked:
        looked = self._looks.get(number)
        if looked is None:
            looked = self._looks[number] = self.model.look(self._feeds[number])
            if len(self._looks) > KEPT:
                self._looks.popitem(last=False)
        else:
            self._looks.move_to_end(number)
        return looked

    def _relabel(self, places: Sequence[int]) -> None:
        """Make the labels of slices those of their logits; of others the automatic ones."""
        for place in places:
            logits = self._corrections.logits.get(place)
            if logits is None:
                self._labels[place] = self._automatic[place]
            else:
                self._labels[place] = self._turn.back(self._on_image(logits))

    def _on_image(self, logits: np.ndarray) -> np.ndarray:
        """Return the labels that logits (K, W, H) mean on the grid of a slice, turned as the network sees it."""
        rows, columns = self.shape[1:]
        if self._turn.swapped:
            rows, columns = columns, rows
        shape, size = (*logits.shape[1:], 1), (columns, rows, 1)
        least = _least_probability(self.model)
        if least is None:
            overlapping = self.model.structures.overlapping
            return labels_of([logits[..., None].copy()], shape, size, overlapping=overlapping)[..., 0].T
        probability = enlarged([softmax(logits.copy())[1:, ..., None]], 1, shape, size)[0, ..., 0]
        return (probability > least).astype(np.uint8).T

    def _on_grid(self, column: float, row: float, size: Sequence[int]) -> tuple[float, float]:
        """Return where a pixel of a slice lies in the network's image; images lie over each other by their edges.

        Raises:
            PyrasegError: it is outside the slice.
        """
        rows, columns = self.shape[1:]
        if not (-0.5 <= column < columns - 0.5 and -0.5 <= row < rows - 0.5):
            raise PyrasegError(
                f"The click at column {column:g} and row {row:g} is outside the image of {columns} columns and {rows} "
                "rows. Columns and rows count from 0."
            )
        x, y = self._turn.place(column, row, (rows, columns))
        across, down = (rows, columns) if self._turn.swapped else (columns, rows)
        return _rescaled(x, across, size[0]), _rescaled(y, down, size[1])

    def _box_on_grid(self, box: Box, size: Sequence[int]) -> tuple[float, float, float, float]:
        """Return a box in the network's image, with the pixel at its center at least."""
        ends = np.array([self._on_grid(column, row, size) for column, row in (box[:2], box[2:])])
        middle = np.clip(np.rint(ends.mean(axis=0)), 0, np.array(size) - 1)
        low, high = np.minimum(ends.min(axis=0), middle), np.maximum(ends.max(axis=0), middle)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def _place_of(self, plane: int) -> int:
        """Return the slice that is a plane of the volume as the network sees it."""
        return len(self._feeds) - 1 - plane if self._turn.backwards else plane


def entropy(logits: np.ndarray, *, overlapping: bool) -> float:
    """Return the mean entropy of a network's answer, in bits a pixel; of regions that of the most uncertain one.

    >>> round(entropy(np.zeros((4, 2, 2), np.float32), overlapping=False), 4)
    2.0
    """
    if overlapping:
        shares = sigmoid(logits)
        parts = np.stack([shares, 1 - shares])
    else:
        parts = softmax(logits.copy())
    bits = -(parts * np.log2(np.maximum(parts, 1e-30))).sum(axis=0)
    return float(bits.mean(axis=(-2, -1)).max())


def _rescaled(place: float, count: int, target: int) -> float:
    """Return where a place on an axis of `count` pixels lies on one of `target` pixels, not beyond its end."""
    return float(np.clip((place + 0.5) * target / count - 0.5, -0.5, target - 0.5001))


def _least_probability(model: ClickModel) -> float | None:
    """Return from which probability the second of two classes is chosen, before any temperature; None: the larger one.

    A temperature takes both to the power of 1 / temperature, and then divides by their sum.
    """
    threshold = model.properties["threshold"]
    if not threshold:
        return None
    odds = (float(threshold) / (1 - float(threshold))) ** float(model.properties["temperature"])
    return odds / (1 + odds)
