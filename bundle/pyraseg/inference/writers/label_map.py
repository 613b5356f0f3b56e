# SPDX-License-Identifier: Apache-2.0
"""Label maps on the input's own grid: NIfTI of a volume, PNG of a photograph."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from PIL import Image

from bundle.pyraseg.core import replacing
from bundle.pyraseg.inference.prediction import Prediction


def write_label_map(labels: MetaTensor, path: Path) -> Path:
    """Write class indices: (1, W, H, D) as NIfTI with the volume's affine, (1, W, H) as PNG of the class values.

    Args:
        labels: class indices, 255 at most, on the input's grid.
        path: without a suffix.

    Returns:
        The path written.
    """
    return write_grid(np.asarray(labels[0]).astype(np.uint8), np.asarray(labels.affine, float), path, compression=3)


def write_grid(values: np.ndarray, affine: np.ndarray, path: Path, *, slope: float = 1.0, compression: int) -> Path:
    """Write numbers on a grid: (W, H, D) as NIfTI, (W, H) as PNG; return the path.

    Args:
        values: of a type that the format holds; a picture's are uint8 or uint16.
        affine: of a volume, (4, 4) in mm; a picture has none.
        path: without a suffix.
        slope: what a reader of the NIfTI multiplies the numbers with.
        compression: of gzip, 1 (fast) to 9 (small).
    """
    if values.ndim == 2:
        path = path.with_name(path.name + ".png")
        with replacing(path) as temporary:
            Image.fromarray(np.ascontiguousarray(values.T)).save(temporary, format="PNG")
        return path
    path = path.with_name(path.name + ".nii.gz")
    image = nib.Nifti1Image(values, affine)
    if slope != 1:
        image.header.set_slope_inter(slope, 0)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=compression, mtime=0))
    return path


class LabelMapWriter:
    """Write the label map of every input, as `write_label_map` does."""

    def __call__(self, prediction: Prediction) -> list[Path]:
        return [write_label_map(prediction.labels, prediction.stem)]
