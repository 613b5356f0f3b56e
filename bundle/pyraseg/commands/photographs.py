# SPDX-License-Identifier: Apache-2.0
"""Segment photographs with an exported model, and write what `inferring` writes, without PyTorch and MONAI."""

import logging.config
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bundle.pyraseg.commands.places import home
from bundle.pyraseg.core import PyrasegError, freeing, protect, protecting_inputs, require_writable
from bundle.pyraseg.figures import compose, write_overlay
from bundle.pyraseg.inference import Tally, VolumeTable, count_values, write_outputs
from bundle.pyraseg.runtime import Labels, Model, png_writer, require_unlike, segment, tell_without_guard


@dataclass(frozen=True, eq=False)
class Photograph:
    """Hold what was found in one photograph, for the writers.

    Attributes:
        name: of the input.
        stem: path of what is written about it, without a suffix.
        pixels: RGB, (rows, columns, 3) uint8.
        labels: label values, (rows, columns) uint8, see `Model.structures`.
        unlike: how far it is from those of the training, see `runtime.Guard.unlike`; None where nobody looked.
        origin: of the DICOM series: a photograph is none.
        volumes: nobody knows how large a pixel is.
    """

    name: str
    stem: Path
    pixels: np.ndarray
    labels: np.ndarray
    unlike: float | None = None
    origin: dict[str, object] = field(default_factory=dict)
    volumes: None = None

    @cached_property
    def voxels(self) -> np.ndarray:
        """Return how many pixels have which label value, (1, 256)."""
        return count_values(self.labels.ravel())[None]


def segment_photographs(
    model: Model, items: Sequence[dict[str, Any]], target: Path, *, outputs: Sequence[str], unlike: str
) -> None:
    """Segment photographs, and name what failed at the end.

    Args:
        model: of photographs.
        items: what `search_inputs` found: photographs, and what is no image though it was given.
        target: folder of the results.
        outputs: some of labels, overlay and volumes.
        unlike: what is done about photographs that are unlike those of the training, see `runtime.Watch`.

    Raises:
        PyrasegError: `unlike` is none of these; or an input failed or lacks an output; the others have their results.
    """
    # MONAI's workflow does the same, with the same file.
    logging.config.fileConfig(home() / "configs" / "logging.conf", disable_existing_loggers=False)
    require_writable([target])
    if require_unlike(unlike) != "ignore" and model.guard is None:
        tell_without_guard(model.path)
    tally, table = Tally(items), VolumeTable(output_dir=target, class_names=model.class_names, regions=model.regions)
    write_png = png_writer(model.structures)

    def labels(found: Photograph) -> list[Path]:
        return write_png(Labels(iter([found.labels]), (1, *found.labels.shape)), found.stem)

    def overlay(found: Photograph) -> list[Path]:
        shown = model.structures.uppermost[found.labels]
        picture = compose([(found.pixels, [shown], shown.shape[::-1])], model.structures.names)
        return [write_overlay(picture, found.stem)]

    writers = {"labels": labels, "overlay": overlay, "volumes": table}
    wanted = {name: writers[name] for name in outputs}
    with protecting_inputs(), freeing():
        protect([model.path])
        if "volumes" in wanted:
            table.start()
        tally.start()
        for item in items:
            try:
                if "fault" in item:
                    raise PyrasegError(item["fault"])
                name = item["name"]
                found = segment(model, item["image"], unlike=unlike, name=name)
                assert found.photograph is not None and found.watch is not None  # the model is one of photographs
                labeled = next(found.slices)
                photograph = Photograph(name, target / name, found.photograph, labeled, found.watch.value)
            except Exception as error:
                tally.fail(item["name"], error)
            else:
                write_outputs(photograph, wanted, output_dir=target, tally=tally)
        table.finish()
        tally.finish()
    tally.require_all()
