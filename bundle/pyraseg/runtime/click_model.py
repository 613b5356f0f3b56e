# SPDX-License-Identifier: Apache-2.0
"""An exported model that clicks correct: a graph that looks at an image once, and one that is run for each click."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.runtime.model import NO_CLASS, PATH, SHOWN, Model, open_session

#: What a graph for clicks holds, by its `content`.
CLICKS = "clicks"
#: Outputs of a whole path that the graph for clicks begins with, beside the logits.
FEATURES = ("fine", "coarse")
#: How the file of the graph for clicks ends, beside that of the whole path.
SUFFIX = ".click.onnx"


def click_file(path: Path) -> Path:
    """Return where the graph for clicks lies that belongs to a whole path, or to a network alone.

    >>> click_file(Path("dermoscopy.int8.onnx")).name, click_file(Path("dermoscopy.network.onnx")).name
    ('dermoscopy.int8.click.onnx', 'dermoscopy.click.onnx')
    """
    return path.with_name(path.name.removesuffix(".onnx").removesuffix(".network") + SUFFIX)


def log_odds_of(logits: np.ndarray, channel: int, *, overlapping: bool) -> np.ndarray:
    """Return the log-odds of a structure against all others, (W, H) float32.

    Args:
        logits: (K, W, H) float32.
        channel: of the structure.
        overlapping: the channels are regions, which know nothing of each other.

    >>> log_odds_of(np.log([[[0.5]], [[0.3]], [[0.2]]]), 1, overlapping=False).astype(float).round(3).tolist()
    [[-0.847]]
    """
    if overlapping:
        return logits[channel].astype(np.float32)
    return (logits[channel] - _of_others(logits, channel)).astype(np.float32)


def with_log_odds(logits: np.ndarray, channel: int, log_odds: np.ndarray, *, overlapping: bool) -> np.ndarray:
    """Return logits (K, W, H) float32 in which a structure has other log-odds; the others share what is left as before.

    >>> shares = np.log([[[0.5]], [[0.3]], [[0.2]]])
    >>> np.exp(with_log_odds(shares, 1, np.log([[4.0]]), overlapping=False)).astype(float).round(2).ravel().tolist()
    [0.5, 2.8, 0.2]
    """
    changed = logits.astype(np.float32)
    changed[channel] = log_odds if overlapping else log_odds + _of_others(logits, channel)
    return changed


def _of_others(logits: np.ndarray, channel: int) -> np.ndarray:
    """Return the logit of all structures but one together: the logarithm of the sum of their exponentials."""
    others = np.delete(logits, channel, axis=0)
    largest = others.max(axis=0)
    return largest + np.log(np.exp(others - largest).sum(axis=0))


@dataclass(frozen=True, eq=False)
class Looked:
    """Hold what is known of an image, whatever is clicked.

    Attributes:
        classes: label value of each pixel of the automatic answer, (rows, columns) uint8, as the network was turned.
        logits: of it on the network's grid, (K, W, H) float32.
        features: of the network, by their names.
        shown: what the network was shown, (C, W, H) float32.
    """

    classes: np.ndarray
    logits: np.ndarray
    features: Mapping[str, np.ndarray]
    shown: np.ndarray


class ClickModel(Model):
    """A whole path, and beside it the graph that corrects its answer where somebody clicked.

    Args:
        path: whole path that `pyraseg export` wrote of a network for clicks; see `click_file` for the other file.
        threads: how many threads both run on.

    Raises:
        PyrasegError: there are no such files, they are of no network for clicks, or of two.
    """

    spreads_threads = False  # one slice is clicked at a time

    def __init__(self, path: str | Path, *, threads: int) -> None:
        super().__init__(path, threads=threads)
        outputs = [output.name for output in self.session.get_outputs()]
        if not {"logits", *FEATURES} <= set(outputs) or self.properties["content"] != PATH:
            raise PyrasegError(
                f"{path} takes no clicks: it was exported of a network without a part for them. Give the file of one "
                "that has it, such as that of `pyraseg export dermoscopy_click` (docs/clicks.md)."
            )
        beside = click_file(self.path)
        remedy = "Export it again: both files are written, and belong together."
        self.refining = open_session(beside, threads=threads, remedy=remedy)
        about = self.refining.get_modelmeta().custom_metadata_map
        if about.get("content") != CLICKS or about.get("weights_sha256") != self.properties["weights_sha256"]:
            raise PyrasegError(f"{beside} does not belong to {path}: it is of other weights. {remedy}")

    def look(self, feed: Mapping[str, np.ndarray]) -> Looked:
        """Look at an image, as the graph's inputs name it.

        Raises:
            PyrasegError: the network's output is not finite.
        """
        names = ["classes", "logits", SHOWN, *FEATURES]
        classes, logits, shown, *features = self.session.run(names, dict(feed))
        if classes.max() == NO_CLASS:
            raise PyrasegError(self._not_finite)
        return Looked(classes[0], logits[0], dict(zip(FEATURES, features, strict=True)), shown[0])

    def refine(self, looked: Looked, channel: int, prompts: np.ndarray) -> np.ndarray:
        """Return the corrected log-odds of a structure, (W, H) float32.

        Args:
            looked: what is known of the image.
            channel: of the structure, see `core.Structures`.
            prompts: (5, W, H) float32, see `draw_prompts`.

        Raises:
            PyrasegError: they are not finite.
        """
        log_odds = log_odds_of(looked.logits, channel, overlapping=self.structures.overlapping)
        feed = {"log_odds": log_odds[None, None], **looked.features, "prompts": prompts[None]}
        found = self.refining.run(["corrected"], feed)[0][0, 0]
        if not np.isfinite([found.min(), found.max()]).all():
            raise PyrasegError(self._not_finite)
        return found

    def chosen(self, structure: str | None) -> int:
        """Return the place of a structure in `structures.names`; None: the only one, or the first.

        Raises:
            PyrasegError: the model finds none of this name.
        """
        names: Sequence[str] = self.structures.names[1:]
        if structure is None:
            return 1
        if structure not in names:
            raise PyrasegError(f"The model finds {', '.join(names)}, not {structure!r}.")
        return 1 + names.index(structure)
