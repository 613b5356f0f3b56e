# SPDX-License-Identifier: Apache-2.0
"""Meshes lie where the image files say, and are as large as the voxels: read by trimesh."""

import numpy as np
import pytest
import trimesh

from bundle.pyraseg.inference.writers.mesh import MeshWriter
from tests.helpers.segmented_series import NAMES, Case


@pytest.mark.parametrize("suffix", ["stl", "ply"])
def test_mesh(case: Case, suffix: str) -> None:
    written = MeshWriter(class_names=NAMES, format=suffix)(case.prediction)
    found = [value for value in range(1, len(NAMES)) if len(case.points(value))]
    assert [path.name for path in written] == [f"case_{NAMES[value]}.{suffix}" for value in found]
    positions = np.array([position for position, *_ in case.planes.values()])
    _, down, right = next(iter(case.planes.values()))
    normal = np.cross(right, down)
    heights = np.sort(positions @ normal / np.linalg.norm(normal))
    voxel = np.linalg.norm(normal) * np.diff(heights).mean()
    for value, path in zip(found, written, strict=True):
        mesh, points = trimesh.load(path), case.points(value)
        assert mesh.is_watertight and mesh.is_winding_consistent
        assert mesh.volume == pytest.approx(len(points) * voxel, rel=0.02) and mesh.volume > 0
        off = np.abs(mesh.center_mass - points.mean(axis=0)).max()
        assert off < 0.1 * max(np.linalg.norm(right), np.diff(heights).mean())
