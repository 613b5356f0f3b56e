# SPDX-License-Identifier: Apache-2.0
"""Write what the network found: label maps on the input's own grid, and a picture of each."""

import gzip
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.data import MetaTensor
from PIL import Image

from bundle.pyraseg.evaluation.overlay import draw
from bundle.pyraseg.files import replacing

logger = logging.getLogger(__name__)


def write_label_map(labels: MetaTensor, path: Path) -> Path:
    """Write class indices: (1, W, H, D) as NIfTI with the volume's affine, (1, W, H) as PNG of the class values.

    Args:
        labels: class indices, 255 at most, on the input's grid.
        path: without a suffix.

    Returns:
        The path written.
    """
    values = np.asarray(labels[0]).astype(np.uint8)
    if values.ndim == 2:
        path = path.with_name(path.name + ".png")
        with replacing(path) as temporary:
            Image.fromarray(np.ascontiguousarray(values.T)).save(temporary, format="PNG")
        return path
    path = path.with_name(path.name + ".nii.gz")
    image = nib.Nifti1Image(values, np.asarray(labels.affine, float))
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=3, mtime=0))
    return path


class SavePredictions:
    """Write the label map and the picture of every input that the evaluator has segmented.

    Args:
        output_dir: folder of the files; each is named as its input, below it.
        class_names: names of all classes, background first.
        windows: as for `Windowd`, for the pictures of inputs in rescaled units; None for photographs.
        label_key: key of the class indices, (1, W, H[, D]) on the input's grid.
        image_key: key of the image before preprocessing.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        class_names: Sequence[str],
        windows: Sequence[Any] | None,
        label_key: str = "pred",
        image_key: str = "original",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.class_names = list(class_names)
        self.windows = windows
        self.label_key = label_key
        self.image_key = image_key

    def attach(self, engine: Engine) -> None:
        ProgressBar(desc="Segmenting", disable=None).attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            labels = output[self.label_key]
            path = write_label_map(labels, self.output_dir / item["name"])
            picture = draw(item[self.image_key], labels, self.class_names, windows=self.windows)
            overlay = self.output_dir / f"{item['name']}_overlay.png"
            with replacing(overlay) as temporary:
                picture.save(temporary, format="PNG")
            logger.info("%s -> %s and %s", item["name"], path, overlay.name)
