# SPDX-License-Identifier: Apache-2.0
"""Slices of every case with the outlines of truth and prediction, kept while a model is evaluated."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from PIL import Image
from torch import Tensor

from bundle.pyraseg.core import Structures, values_of, write_json
from bundle.pyraseg.datalists import case_names
from bundle.pyraseg.figures import at_window, display, outline_paths
from bundle.pyraseg.transforms import UNKNOWN, only_annotated

#: Characters that the pictures of all cases take together: more than a page shows, which chooses the worst cases.
ROOM = 40_000_000
#: Longer side of a picture in pixels, and the quality of its compression (WebP).
SIDE, QUALITY = 320, 60


class CasePictures:
    """Keep some slices of every case, or a photograph whole, and write them as `pictures.json` at the end.

    Predictions are shown of the classes that a case was annotated for (`LoadLabeld` tells): of others nobody can say
    whether they are right.

    Cases share `ROOM`: of many, each shows fewer slices, but at least one. Attach it to the evaluator.

    Args:
        output_dir: folder of the file.
        cases: items of the data list, in the order of the evaluation.
        dataset_dir: cases are named by the path of their image below it.
        windows: as for `Windowd`, the first of which shows the image; None where it needs none.
        slices: that a case shows at most.
        class_names: names of all classes, background first; needed for regions.
        regions: the classes of each region where these are predicted, see `core.Structures`.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        cases: Sequence[dict],
        dataset_dir: str | Path,
        windows: Sequence[Any] | None,
        slices: int = 24,
        class_names: Sequence[str] = ("background",),
        regions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.path = Path(output_dir) / "pictures.json"
        self.names = case_names(cases, dataset_dir)
        self.windows = windows
        self.slices = slices
        self.structures = Structures(class_names, regions)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self)

    def start(self, engine: Engine) -> None:
        """Forget the cases of an evaluation before."""
        self.cases: list[dict[str, Any]] = []

    def add(self, engine: Engine) -> None:
        """Draw the cases of an iteration."""
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            views = draw_views(
                batch["original"],
                only_annotated(output["pred"], batch.get("annotated"), self.structures),
                output["truth"],
                windows=self.windows,
                most=self.slices,
                room=ROOM // len(self.names),
                overlapping=self.structures.overlapping,
            )
            self.cases.append({"case": self.names[len(self.cases)], **views})

    def __call__(self, engine: Engine) -> None:
        write_json(self.path, {"cases": self.cases}, indent=None)


def draw_views(
    original: MetaTensor,
    prediction: Tensor,
    truth: Tensor,
    *,
    windows: Sequence | None,
    most: int,
    room: int,
    overlapping: bool = False,
) -> dict[str, Any]:
    """Return the views of a case as plain values.

    Args:
        original: the image before preprocessing, (C, W, H[, D]); rescaled units, or gray or RGB bytes.
        prediction: class indices on the same grid, (1, W, H[, D]).
        truth: the same.
        windows: as for `Windowd`, the first of which is used; None where the image needs none.
        most: slices of a volume.
        room: characters that all views take together; one is returned even if it takes more.
        overlapping: the labels are values of regions, see `core.Structures`; classes stands for regions below.

    Returns:
        `depth`: the number of slices, or None for a picture; `views`, the most telling first: `slice` (counted from 1,
        or None), `size` [width, height], `image` (WebP in base64), `truth` and `prediction` (SVG paths by class index);
        `predicted`: voxels by class index, by which a reader sees that scores are of the same prediction.
    """
    volume = original.ndim == 4
    known = truth != UNKNOWN  # elsewhere nobody can say that the prediction is wrong: nothing is scored there either
    truth, prediction = (torch.where(known, labels, 0).to(torch.uint8).cpu() for labels in (truth, prediction))
    slices = rank_slices(np.asarray(prediction)[0], np.asarray(truth)[0])[:most] if volume else None
    image = at_window(original, windows, slices=slices)
    maps = [truth, prediction] if slices is None else [labels[..., slices] for labels in (truth, prediction)]
    views, used = [], 0
    for place, index in [(None, None)] if slices is None else enumerate(slices):
        view = _view(*display(image, maps, index=place), overlapping=overlapping)
        used += sum(len(text) for text in (view["image"], *view["truth"].values(), *view["prediction"].values()))
        if views and used > room:
            break
        views.append({"slice": None if index is None else index + 1} | view)
    counts = {int(value): int(count) for value, count in zip(*np.unique(prediction, return_counts=True), strict=True)}
    if overlapping:
        count = max(counts, default=0).bit_length()
        holding = {number: values_of(number, count, overlapping=True) for number in range(1, count + 1)}
        counts = {number: sum(counts.get(value, 0) for value in values) for number, values in holding.items()}
    return {"depth": original.shape[3] if volume else None, "views": views, "predicted": counts}


def _view(
    picture: np.ndarray, maps: Sequence[np.ndarray], size: tuple[float, float], *, overlapping: bool
) -> dict[str, Any]:
    scale = SIDE / max(size)
    shown = tuple(max(1, round(side * scale)) for side in size)
    # Small pixels are averaged; large ones stay as sharp as they are and are enlarged by whoever shows them.
    stored = min(shown[0], picture.shape[1]), min(shown[1], picture.shape[0])
    file = io.BytesIO()
    Image.fromarray(picture).resize(stored, Image.Resampling.LANCZOS).save(file, "WEBP", quality=QUALITY)
    true, predicted = (outline_paths(labels, shown, overlapping=overlapping) for labels in maps)
    return {
        "size": list(shown),
        "image": base64.b64encode(file.getvalue()).decode("ascii"),
        "truth": true,
        "prediction": predicted,
    }


def rank_slices(prediction: np.ndarray, truth: np.ndarray) -> list[int]:
    """Return slices of (W, H, D) in the order in which they tell about a segmentation.

    The one with most wrong voxels comes first. Every further one is the furthest from those before, among the slices
    that truth or prediction mark; where neither marks any, the middle one is all.
    """
    wrong = (prediction != truth).sum(axis=(0, 1))
    marked = np.flatnonzero(((prediction > 0) | (truth > 0)).any(axis=(0, 1)))
    if not len(marked):
        return [truth.shape[2] // 2]
    order = [int(marked[wrong[marked].argmax()])]
    distance = np.abs(marked - order[0])
    while distance.any():
        order.append(int(marked[distance.argmax()]))
        distance = np.minimum(distance, np.abs(marked - order[-1]))
    return order
