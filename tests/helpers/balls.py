# SPDX-License-Identifier: Apache-2.0
"""Small volumes for trainings of seconds: a ball of soft tissue in noise, of class 1, another one for each patient."""

from pathlib import Path

import nibabel as nib
import numpy as np


def write_balls(folder: Path, *, patients: int = 12, size: tuple[int, int, int] = (36, 32, 20)) -> Path:
    """Write `images/` and `labels/` as NIfTI with voxels of 6 mm, in the units of CT; return the folder."""
    random = np.random.default_rng(7)
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for patient in range(patients):
        middle, radius = random.uniform(0.35, 0.65, 3) * size, random.uniform(4, 7)
        ball = np.linalg.norm(grid - middle, axis=-1) < radius
        image = np.where(ball, 120, 40) + random.normal(0, 15, size)
        for kind, array in (("images", image.astype(np.float32)), ("labels", ball.astype(np.uint8))):
            nib.Nifti1Image(array, np.diag([6, 6, 6, 1])).to_filename(folder / kind / f"p{patient:02d}.nii.gz")
    return folder
