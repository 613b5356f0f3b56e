# SPDX-License-Identifier: Apache-2.0
"""Corrections of what a network found in the slices of an image: clicks, their way to other slices, and back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.pyraseg.core import Structures
from bundle.pyraseg.runtime.click_model import log_odds_of, with_log_odds
from bundle.pyraseg.runtime.prompts import Click, draw_prompts
from bundle.pyraseg.runtime.volume_labels import sigmoid

#: A correction goes on to the next slice while its mask there has at least this Dice with that of the slice before ...
LIKENESS = 0.7
#: ... and for so many slices to either side.
REACH = 8


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


class Corrections:
    """What was clicked in the slices of an image, and what the network makes of it, on the network's grid.

    A click corrects its slice and goes on to the neighbors on either side, one after the other: there, the same clicks
    are given with the mask of the slice before as the last answer. It ends before the first slice

    - in which the clicks have nothing to say: all are in or out of the structure, as they should be,
    - whose corrected mask is empty, or has a Dice of less than `LIKENESS` with that of the slice before,
    - that has clicks for this structure itself, or is more than `REACH` slices away.

    A box stays in its slice.

    Args:
        structures: that the network finds.
        depth: how many slices there are, all of one size.
        logits: returns what the network found in a slice, (K, W, H) float32.
        refine: returns the corrected log-odds (W, H) of a slice, a channel, and prompts (5, W, H); see `draw_prompts`.
    """

    def __init__(
        self,
        structures: Structures,
        depth: int,
        *,
        logits: Callable[[int], np.ndarray],
        refine: Callable[[int, int, np.ndarray], np.ndarray],
    ) -> None:
        self._structures = structures
        self._depth = depth
        self._found = logits
        self._refine = refine
        self._given: dict[tuple[int, int], Given] = {}
        self._steps: list[Step] = []
        self._logits: dict[int, np.ndarray] = {}

    @property
    def logits(self) -> Mapping[int, np.ndarray]:
        """Return the logits (K, W, H) of each slice that was corrected."""
        return self._logits

    @property
    def clicks(self) -> int:
        return sum(len(given.clicks) for given in self._given.values())

    @property
    def boxes(self) -> int:
        return sum(given.box is not None for given in self._given.values())

    def correct(
        self,
        number: int,
        structure: int,
        clicks: Sequence[Click],
        box: tuple[float, float, float, float] | None = None,
        *,
        spread: bool = True,
    ) -> list[int]:
        """Add clicks, or a box, for a structure of a slice, and return the slices that have other logits now.

        Args:
            number: of the slice.
            structure: its place in the names of the structures.
            clicks, box: see `draw_prompts`; the box takes the place of an earlier one.
            spread: go on to the neighboring slices.
        """
        key = number, structure
        before = self._given.get(key, Given())
        given = Given((*before.clicks, *clicks), before.box if box is None else box)
        changed: dict[int, np.ndarray] = {}
        log_odds = self._refined(number, structure, given, self._probability(number, structure), changed)
        if spread and clicks:
            for step in (-1, 1):
                self._spread(number, step, structure, given.clicks, log_odds, changed)
        self._steps.append(Step(key, self._given.get(key), {place: self._logits.get(place) for place in changed}))
        self._given[key] = given
        self._logits |= changed
        return sorted(changed)

    def undo(self) -> list[int]:
        """Take back what was given last, and return the slices that have other logits now; none where nothing was."""
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
            if not 0 <= place < self._depth or (place, structure) in self._given:
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
        structures = self._structures
        prompts = draw_prompts(given.clicks, given.box, last.shape, last)
        channel = structures.channel(structure)
        found = self._refine(number, channel, prompts)
        logits = self._logits.get(number)
        logits = self._found(number) if logits is None else logits
        changed[number] = with_log_odds(logits, channel, found, overlapping=structures.overlapping)
        return found

    def _probability(self, number: int, structure: int) -> np.ndarray:
        """Return the probability of a structure by the last answer, (W, H) float32."""
        logits = self._logits.get(number)
        if logits is None:
            logits = self._found(number)
        structures = self._structures
        return sigmoid(log_odds_of(logits, structures.channel(structure), overlapping=structures.overlapping))


def _pixel(click: Click, size: Sequence[int]) -> tuple[int, int]:
    """Return the pixel that a click is in."""
    column, row = (int(np.clip(np.rint(at), 0, count - 1)) for at, count in zip(click[:2], size, strict=True))
    return column, row
