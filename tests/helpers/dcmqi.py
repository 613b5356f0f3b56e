# SPDX-License-Identifier: Apache-2.0
"""Segmentations as dcmqi reads them, in patient millimeters: a truth that shares no code with ours."""

import subprocess
from pathlib import Path

import itk
import numpy as np
from scipy.spatial import cKDTree

from bundle.pyraseg.labels.references import ImageGrid


def dcmqi_points(path: Path) -> dict[int, np.ndarray]:
    """Return the LPS mm (n, 3) of every voxel of each segment, as `segimage2itkimage` writes them."""
    out = path.parent / f"{path.name}-dcmqi"
    out.mkdir()
    command = ["segimage2itkimage", "--inputDICOM", path, "--outputDirectory", out, "-t", "nrrd", "-p", "out"]
    subprocess.run(command, check=True, capture_output=True)
    found: dict[int, np.ndarray] = {}
    for file in sorted(out.glob("out-*.nrrd")):
        image = itk.imread(file)
        to_mm = np.asarray(image.GetDirection()) * np.asarray(image.GetSpacing())
        values = np.asarray(image)
        for value in np.unique(values[values > 0]):
            indices = np.argwhere(values == value)[:, ::-1]
            found[int(value)] = np.asarray(image.GetOrigin()) + indices @ to_mm.T
    return found


def voxel_points(grid: ImageGrid, mask: np.ndarray) -> np.ndarray:
    """Return the LPS mm (n, 3) of the voxels of a mask (slices, rows, columns) by PS3.3 C.7.6.2.1.1."""
    k, r, c = np.nonzero(mask)
    geometry = grid.geometry
    between_rows, between_columns = geometry.pixel_spacing
    down, right = np.outer(r * between_rows, geometry.column_cosine), np.outer(c * between_columns, geometry.row_cosine)
    return geometry.positions[k] + down + right


def same_points(some: np.ndarray, others: np.ndarray, tolerance: float = 1e-3) -> bool:
    """Return whether two sets of points are the same within mm."""
    if len(some) != len(others):
        return False
    return max(cKDTree(some).query(others)[0].max(), cKDTree(others).query(some)[0].max()) < tolerance
