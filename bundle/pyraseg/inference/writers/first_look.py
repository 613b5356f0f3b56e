# SPDX-License-Identifier: Apache-2.0
"""For a first look at what was found: a picture of each input."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.pyraseg.figures import draw, write_overlay
from bundle.pyraseg.inference.prediction import Prediction


class OverlayWriter:
    """Write the image, the label map and both laid over each other as `<name>_overlay.png`.

    Args:
        class_names: names of all classes, background first.
        windows: as for `Windowd`, for inputs in rescaled units; None for photographs.
        regions: the classes of each region where these are predicted, see `core.Structures`.
            Where several are, the last one is drawn.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        windows: Sequence[Any] | None,
        regions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.class_names = list(class_names)
        self.windows = windows
        self.regions = regions

    def __call__(self, prediction: Prediction) -> list[Path]:
        found = prediction.original, prediction.labels
        picture = draw(*found, self.class_names, windows=self.windows, regions=self.regions)
        return [write_overlay(picture, prediction.stem)]
