# SPDX-License-Identifier: Apache-2.0
"""A simulated user, who clicks where a mask is wrong: to train networks for corrections, and to measure them."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, label

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.runtime import Click, draw_prompts

#: Errors that touch by a corner are one.
CONNECTED = np.ones((3, 3), bool)


class SimulatedUser:
    """Click where a mask differs from the truth, one error at a time.

    The rule: missed and superfluous pixels are cut into connected errors. The user turns to the largest one and clicks
    the pixel of it that lies deepest inside, by the Euclidean distance to what is not of it (or outside the image). A
    click is foreground where something was missed. In training, errors are chosen with a probability in proportion to
    their area instead. A hand that is not steady clicks some pixels beside; a click never leaves the image.

    Args:
        truth: what is meant, (W, H), bool.
        known: where it is known, (W, H) bool; None: everywhere. Nobody clicks elsewhere.
        random: chooses errors and displacements; None for the rule without either.
        by_area: whether errors are drawn by their area.
        jitter: least and largest distance, in pixels, by which a click misses its place, in a random direction.
        box: two opposite corners around what is meant, see `runtime.draw_prompts`.

    Raises:
        PyrasegError: there is something to be drawn, and nothing to draw from.

    >>> truth = np.zeros((20, 20), bool)
    >>> truth[4:11, 4:11] = True
    >>> user = SimulatedUser(truth)
    >>> user.click(np.zeros((20, 20), bool)), user.clicks, user.click(truth)
    (True, [(7.0, 7.0, True)], False)
    """

    def __init__(
        self,
        truth: np.ndarray,
        *,
        known: np.ndarray | None = None,
        random: np.random.Generator | None = None,
        by_area: bool = False,
        jitter: tuple[float, float] = (0.0, 0.0),
        box: Sequence[float] | None = None,
    ) -> None:
        if random is None and (by_area or jitter[1] > 0):
            raise PyrasegError("A simulated user who draws errors or misses them needs a generator of random numbers.")
        self.truth, self.known = truth, known
        self.random, self.by_area, self.jitter = random, by_area, jitter
        self.box = box
        self.clicks: list[Click] = []

    def click(self, found: np.ndarray) -> bool:
        """Click the next error of a mask (W, H) bool; return whether there is one."""
        place = self._next(found)
        if place is not None:
            self.clicks.append(place)
        return place is not None

    def prompts(self, last: np.ndarray) -> np.ndarray:
        """Return all clicks so far, the box and the last answer as maps, see `runtime.draw_prompts`."""
        return draw_prompts(self.clicks, self.box, self.truth.shape, last)

    def _next(self, found: np.ndarray) -> Click | None:
        wrong = found != self.truth if self.known is None else (found != self.truth) & self.known
        if not wrong.any():
            return None
        errors = [*_errors(wrong & self.truth, True), *_errors(wrong & ~self.truth, False)]
        areas = np.array([area for area, *_ in errors])
        if self.by_area:
            assert self.random is not None
            chosen = int(self.random.choice(len(errors), p=areas / areas.sum()))
        else:
            chosen = int(areas.argmax())
        _, error, (column, row), is_foreground = errors[chosen]
        depth = distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1]
        inside = np.unravel_index(depth.argmax(), depth.shape)
        return (*self._displaced(column + float(inside[0]), row + float(inside[1])), is_foreground)

    def _displaced(self, column: float, row: float) -> tuple[float, float]:
        if self.random is None or self.jitter[1] == 0:
            return column, row
        distance, angle = self.random.uniform(*self.jitter), self.random.uniform(0, 2 * np.pi)
        width, height = self.truth.shape
        return (
            float(np.clip(column + distance * np.cos(angle), 0, width - 1)),
            float(np.clip(row + distance * np.sin(angle), 0, height - 1)),
        )


def _errors(part: np.ndarray, is_foreground: bool) -> list[tuple[int, np.ndarray, tuple[int, int], bool]]:
    """Return area, mask, first column and row, and kind of every connected error."""
    labels, _ = label(part, CONNECTED)
    found = []
    for number, (columns, rows) in enumerate(find_objects(labels), start=1):
        error = labels[columns, rows] == number
        found.append((int(error.sum()), error, (columns.start, rows.start), is_foreground))
    return found
