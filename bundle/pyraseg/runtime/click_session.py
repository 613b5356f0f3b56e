# SPDX-License-Identifier: Apache-2.0
"""Correct the answer for one image, click by click, and take clicks back."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.runtime.click_model import ClickModel, Looked, log_odds_of, with_log_odds
from bundle.pyraseg.runtime.guard import Watch
from bundle.pyraseg.runtime.images import Labels, open_image, tidied
from bundle.pyraseg.runtime.prompts import Click, draw_prompts
from bundle.pyraseg.runtime.resampling import enlarged
from bundle.pyraseg.runtime.volume_labels import labels_of, sigmoid, softmax

#: Slices of a series whose features are kept at a time.
KEPT = 24
#: A correction goes on to the next slice while its mask there has at least this Dice with that of the slice before ...
LIKENESS = 0.7
#: ... and for so many slices to either side.
REACH = 8

#: The corners of a box, (column, row, column, row).
Box = Sequence[float]


@dataclass(frozen=True)
class Given:
    """Hold what was drawn for a structure of a slice, in pixels of the network's image."""

    clicks: tuple[Click, ...] = ()
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """Hold what one correction changed, as it was before: by slice, None where nothing had been changed."""

    slice_and_structure: tuple[int, int]
    given: Given | None
    logits: dict[int, np.ndarray | None]


class ClickSession:
    """One image, the automatic answer for it, and corrections of that.

    The network looks at each slice once. A click, or a box, costs what corrects one structure of one slice. Where
    nothing was clicked the labels are those of `segment`; of slices with a correction they are what the network makes
    of it, and nothing is tidied up there, so that nothing that somebody clicked is removed again.

    Clicks are in pixels of the image as it is shown and stored, (column, row), the center of the first one at (0, 0).

    In a series a click corrects its slice and goes on to the neighbors on either side, one after the other: there, the
    same clicks are given with the mask of the slice before as the last answer. It ends before the first slice

    - in which the clicks have nothing to say: all are in or out of the structure, as they should be,
    - whose corrected mask is empty, or has a Dice of less than `LIKENESS` with that of the slice before,
    - that has clicks for this structure itself, or is more than `REACH` slices away.

    A box stays in its slice.

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
        self._given: dict[tuple[int, int], Given] = {}
        self._logits: dict[int, np.ndarray] = {}
        self._steps: list[Step] = []
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
        return sum(len(given.clicks) for given in self._given.values())

    @property
    def boxes(self) -> int:
        return sum(given.box is not None for given in self._given.values())

    def labels(self, number: int = 0) -> np.ndarray:
        """Return the label value of each pixel of a slice, (rows, columns) uint8."""
        return self._labels[number]

    def pixels(self, number: int = 0) -> np.ndarray:
        """Return a slice as it is stored: (rows, columns) float32, in rescaled units, or (rows, columns, 3) uint8."""
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
        key = number, structure
        before = self._given.get(key, Given())
        size = self._look(number).logits.shape[1:]
        added = [(*self._on_grid(column, row, size), bool(inside)) for column, row, inside in clicks]
        given = Given((*before.clicks, *added), before.box if box is None else self._box_on_grid(box, size))
        changed: dict[int, np.ndarray] = {}
        log_odds = self._refined(number, structure, given, self._probability(number, structure), changed)
        if spread and added:
            for step in (-1, 1):
                self._spread(number, step, structure, given.clicks, log_odds, changed)
        self._steps.append(Step(key, self._given.get(key), {place: self._logits.get(place) for place in changed}))
        self._given[key] = given
        self._logits |= changed
        self._relabel(changed)
        return sorted(changed)

    def undo(self) -> list[int]:
        """Take back what was given last, and return the slices that have other labels now; none where nothing was."""
        if not self._steps:
            return []
        step = self._steps.pop()
        if step.given is None:
            del self._given[step.slice_and_structure]
        else:
            self._given[step.slice_and_structure] = step.given
        for place, logits in step.logits.items():
            if logits is None:
                del self._logits[place]
            else:
                self._logits[place] = logits
        self._relabel(step.logits)
        return sorted(step.logits)

    def _spread(
        self,
        number: int,
        step: int,
        structure: int,
        clicks: Sequence[Click],
        log_odds: np.ndarray,
        changed: dict[int, np.ndarray],
    ) -> None:
        """Go on to the neighbors on one side, see the class."""
        for place in range(number + step, number + step * (REACH + 1), step):
            if not 0 <= place < self.shape[0] or (place, structure) in self._given:
                return
            own = self._probability(place, structure) > 0.5
            if all(own[_pixel(click, own.shape)] == click[2] for click in clicks):
                return
            found: dict[int, np.ndarray] = {}
            here = self._refined(place, structure, Given(tuple(clicks)), sigmoid(log_odds), found)
            mask, last = here > 0, log_odds > 0
            if not mask.any() or 2 * (mask & last).sum() < LIKENESS * (mask.sum() + last.sum()):
                return
            changed |= found
            log_odds = here

    def _refined(
        self, number: int, structure: int, given: Given, last: np.ndarray, changed: dict[int, np.ndarray]
    ) -> np.ndarray:
        """Return the corrected log-odds of a structure of a slice, and put its logits among those that changed."""
        looked, structures = self._look(number), self.model.structures
        prompts = draw_prompts(given.clicks, given.box, last.shape, last)
        channel = structures.channel(structure)
        found = self.model.refine(looked, channel, prompts)
        logits = self._logits.get(number, looked.logits)
        changed[number] = with_log_odds(logits, channel, found, overlapping=structures.overlapping)
        return found

    def _probability(self, number: int, structure: int) -> np.ndarray:
        """Return the probability of a structure by the last answer, (W, H) float32."""
        logits = self._logits.get(number)
        if logits is None:
            logits = self._look(number).logits
        structures = self.model.structures
        return sigmoid(log_odds_of(logits, structures.channel(structure), overlapping=structures.overlapping))

    def _look(self, number: int) -> Looked:
        looked = self._looks.get(number)
        if looked is None:
            looked = self._looks[number] = self.model.look(self._feeds[number])
            if len(self._looks) > KEPT:
                self._looks.popitem(last=False)
        else:
            self._looks.move_to_end(number)
        return looked

    def _relabel(self, places: Mapping[int, object]) -> None:
        """Make the labels of slices those of their logits; of others the automatic ones."""
        for place in places:
            logits = self._logits.get(place)
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


def _pixel(click: Click, size: Sequence[int]) -> tuple[int, int]:
    """Return the pixel that a click is in."""
    column, row = (int(np.clip(np.rint(at), 0, count - 1)) for at, count in zip(click[:2], size, strict=True))
    return column, row


def _least_probability(model: ClickModel) -> float | None:
    """Return from which probability the second of two classes is chosen, before any temperature; None: the larger one.

    A temperature takes both to the power of 1 / temperature, and then divides by their sum.
    """
    threshold = model.properties["threshold"]
    if not threshold:
        return None
    odds = (float(threshold) / (1 - float(threshold))) ** float(model.properties["temperature"])
    return odds / (1 + odds)
