# SPDX-License-Identifier: Apache-2.0
"""Label maps on the input's own grid: NIfTI of a volume, PNG of a photograph."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from PIL import Image

from bundle.pyraseg.files import replacing
from bundle.pyraseg.inference.prediction import Prediction


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


class LabelMapWriter:
    """Write the label map of every input, as `write_label_map` does."""

    def __call__(self, prediction: Prediction) -> list[Path]:
        return [write_label_map(prediction.labels, prediction.stem)]
