# SPDX-License-Identifier: Apache-2.0
"""Small volumes with a bright ball in noise, for commands that want a whole study."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np


def write_ball_study(folder: Path, *, training: int = 4, validation: int = 3, size=(24, 28, 20), spacing=(1, 1, 1)):
    """Write a study with a data list, and return its folder; every patient has one case."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    parts = {"training": training, "validation": validation, "test": 1}
    listed: dict[str, list] = {part: [] for part in parts}
    places = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"))
    for part, count in parts.items():
        for n in range(count):
            middle = np.array(size) / 2 + random.uniform(-2, 2, 3)
            ball = ((places - middle[:, None, None, None]) ** 2).sum(axis=0) < 36
            image = random.normal(100 * ball, 20).astype(np.float32)
            case = {"patient": f"{part}{n}"}
            for key, array in (("image", image), ("label", ball.astype(np.uint8))):
                case[key] = f"{part}{n}_{key}.nii.gz"
                nib.Nifti1Image(array, np.diag([*spacing, 1.0])).to_filename(folder / case[key])
            listed[part].append(case)
    (folder / "datalist.json").write_text(json.dumps(listed))
    return folder
