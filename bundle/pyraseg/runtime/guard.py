# SPDX-License-Identifier: Apache-2.0
"""How far an image is from those that a model was trained on, and what is done about one that is unlike them.

What is known of the training's images travels with the weights, and with what is exported of them. The bundle and its
runtime share this.
"""

import base64
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bundle.pyraseg.core import PyrasegError, nearest_hint, tell
from bundle.pyraseg.runtime.statistics import image_statistics, planes_of

logger = logging.getLogger(__name__)

#: Version of the text of a guard.
FORMAT = 1
#: What may be done about an image that is unlike those of the training: say so, refuse it, or not look.
UNLIKE = ("warn", "refuse", "ignore")
#: Images of its kind, of 100, that a guard is meant to leave alone.
LEFT_ALONE = 98


@dataclass(frozen=True, eq=False)
class Guard:
    """Hold where the images of a training lie among all that there may be, by their statistics.

    Attributes:
        center: mean of the statistics, (F,) float32.
        scale: what each is multiplied by, (F,) float32.
        axes: orthogonal directions along which the training's images differ most, (k, F) float32.
        variances: of the images along these, (k,) float32.
        residual: their mean squared distance from the space of these.
        threshold: distance above which an image is unlike them.
    """

    center: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    residual: float
    threshold: float

    def distances(self, statistics: np.ndarray) -> np.ndarray:
        """Return how far planes are from those of the training, (N,), around 1 for one like them.

        It is the root of the mean of two squares: the Mahalanobis distance along the axes, by their number, and the
        distance from their space, by that of the training's images. What is not finite is infinitely far.

        Args:
            statistics: of each plane, (N, F), see `image_statistics`.

        >>> flat = Guard(np.zeros(3), np.ones(3), np.eye(3)[:1], np.array([4.0]), residual=2.0, threshold=1.5)
        >>> flat.distances(np.array([[2.0, 1, 1], [0, 0, 0], [6, 1, 1]])).tolist()
        [1.0, 0.0, 2.23606797749979]
        """
        scaled = (statistics - self.center) * self.scale
        along = scaled @ self.axes.T
        beside = np.maximum((scaled**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        squares = (along**2 / self.variances).mean(axis=1) + beside / self.residual
        return np.nan_to_num(np.sqrt(squares / 2), nan=np.inf)

    def unlike(self, statistics: Sequence[np.ndarray]) -> float:
        """Return the median distance of an image's planes as a multiple of the threshold: above 1 it is unlike."""
        return float(np.median(self.distances(np.stack(statistics))) / self.threshold)

    @cached_property
    def text(self) -> str:
        """Return the guard as JSON, its arrays in base64; the axes in half precision."""
        arrays = {"center": "<f4", "scale": "<f4", "axes": "<f2", "variances": "<f4"}
        packed = {
            name: base64.b64encode(np.asarray(getattr(self, name), dtype).tobytes()).decode()
            for name, dtype in arrays.items()
        }
        return json.dumps({"format": FORMAT, "residual": self.residual, "threshold": self.threshold, **packed})

    @classmethod
    def read(cls, text: str, source: object) -> "Guard":
        """Return the guard of a text.

        Args:
            text: see `text`.
            source: where it was found, for the message.

        Raises:
            PyrasegError: it is of a later version of this program.
        """
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise PyrasegError(
                f"The guard in {source} is of form {content['format']}, and this program knows form {FORMAT}. Use a "
                "later version of pyraseg, or leave the guard out: --unlike ignore."
            )

        def array(name: str, dtype: str) -> np.ndarray:
            return np.frombuffer(base64.b64decode(content[name]), dtype).astype(np.float32)

        center = array("center", "<f4")
        axes = array("axes", "<f2").reshape(-1, len(center))
        numbers = content["residual"], content["threshold"]
        return cls(center, array("scale", "<f4"), axes, array("variances", "<f4"), *numbers)


class Watch:
    """Look at one image while it is segmented, plane by plane, and judge it.

    Args:
        guard: of the model; None where it has none.
        unlike: what is done about an image that is unlike those of the training, see `UNLIKE`.
        name: of the image, for messages.
    """

    def __init__(self, guard: Guard | None, unlike: str, *, name: str) -> None:
        self.guard = None if unlike == "ignore" else guard
        self.refuses = unlike == "refuse"
        self.name = name
        #: How far the image is from those of the training, see `Guard.unlike`, once it is judged.
        self.value: float | None = None
        self._seen: list[np.ndarray] = []

    def planes(self, depth: int) -> frozenset[int]:
        """Return which planes of an image of that depth are to be seen; none where nobody looks."""
        return frozenset(planes_of(depth) if self.guard is not None else ())

    def see(self, plane: np.ndarray) -> None:
        """Look at one of these planes, in any order: (C, W, H) float32, as the network is shown it."""
        self._seen.append(image_statistics(plane))

    def judge(self) -> float | None:
        """Return how far the image is from those of the training, see `Guard.unlike`, when all its planes were seen.

        A line in the log tells of one that is unlike them. None: the model has no guard, or nobody looks.

        Raises:
            PyrasegError: it is unlike them, and such images are refused.
        """
        if self.guard is None:
            return None
        self.value = self.guard.unlike(self._seen)
        if self.value > 1:
            if self.refuses:
                raise PyrasegError(
                    f"it is {in_words(self.value)}. Segment images of their kind, or look at the result yourself: "
                    "--unlike warn."
                )
            logger.warning(
                "%s: it is %s. Its result may mean nothing, so look at it before it is used. (--unlike refuse leaves "
                "out such images, --unlike ignore does not look.)",
                self.name, in_words(self.value),
            )  # fmt: skip
        return self.value

    def look(self, image: np.ndarray) -> float | None:
        """Look at a whole image, (C, W, H[, D]) float32, and judge it."""
        volume = image if image.ndim == 4 else image[..., None]
        for number in sorted(self.planes(volume.shape[3])):
            self.see(np.ascontiguousarray(volume[..., number]))
        return self.judge()


def require_unlike(unlike: str) -> str:
    """Return what is done about images that are unlike those of the training.

    Raises:
        PyrasegError: it is none of `UNLIKE`.
    """
    if unlike not in UNLIKE:
        raise PyrasegError(f"unlike is one of {', '.join(UNLIKE)}, not {unlike!r}.{nearest_hint(unlike, UNLIKE)}")
    return unlike


def tell_without_guard(source: object) -> None:
    """Say, once, that a model has no guard."""
    tell(
        f"The model {source} has no guard, so nothing says which images are unlike those of its training. `pyraseg "
        "guard` adds one, from the data of the training."
    )


def in_words(value: float) -> str:
    """Return what is to be said of an image whose value is above 1, see `Guard.unlike`, behind "it is"."""
    return (
        f"unlike the images that the model was trained on, {value:.2f} times as far from them as {LEFT_ALONE} in 100 "
        "of their kind lie at most"
    )
