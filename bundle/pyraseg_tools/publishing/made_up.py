# SPDX-License-Identifier: Apache-2.0
"""An image that shows nobody, for a network to be tried on wherever its package goes."""

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from bundle.pyraseg_tools.datasets.phantom import phantom_case

PHOTOGRAPH, VOLUME = "input.png", "input.nii"
_SIZE = 192, 160  # columns, rows: not alike, so that a transposed result is seen
_PATIENT = 5  # of the phantom study: axial slices, a lesion
_SLICES = slice(8, 14)


def write_made_up(folder: Path, *, photograph: bool) -> None:
    """Write an image and an empty label beside it, `input.*` and `label.*`.

    Args:
        folder: exists.
        photograph: a drawn patch on skin, as PNG, in place of a few slices of a phantom CT, as NIfTI in RAS.
    """
    if photograph:
        Image.fromarray(_skin()).save(folder / PHOTOGRAPH)
        Image.fromarray(np.zeros(_SIZE[::-1], np.uint8)).save(folder / "label.png")
    else:
        case = phantom_case(2024, _PATIENT, size=96)
        voxels = np.ascontiguousarray(case.hu[_SLICES].transpose(2, 1, 0))
        affine = np.diag([-case.pixel_spacing[1], -case.pixel_spacing[0], float(case.slice_step[2]), 1.0])
        nib.save(nib.Nifti1Image(voxels, affine), folder / VOLUME)
        nib.save(nib.Nifti1Image(np.zeros(voxels.shape, np.uint8), affine), folder / "label.nii")


def _skin() -> np.ndarray:
    """Return a brown patch with a soft, uneven border on grained skin, (rows, columns, 3) uint8."""
    columns, rows = _SIZE
    y, x = np.indices((rows, columns))
    across, down = (x - 0.42 * columns) / (0.24 * columns), (y - 0.55 * rows) / (0.3 * rows)
    distance = np.hypot(across, down) * (1 + 0.12 * np.sin(3 * np.arctan2(down, across)))
    patch = 1 / (1 + np.exp((distance - 1) / 0.06))
    skin, brown = np.array([214, 168, 150]), np.array([98, 60, 48])
    grain = np.random.default_rng(0).normal(0, 6, (rows, columns, 1))
    return np.clip(skin + patch[..., None] * (brown - skin) + grain, 0, 255).astype(np.uint8)
