# SPDX-License-Identifier: Apache-2.0
"""Meshes lie where the image files say, and are as large as the voxels: read by trimesh."""

import re

import numpy as np
import pytest
import trimesh

from bundle.pyraseg.core import names_in_files
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


@pytest.mark.parametrize(
    "names",
    [
        ["left kidney", "left_kidney"],
        ["Liver", "liver"],
        ["a/b", "a:b", "a b"],
        ["left_kidney", "kidney"],
        ["1-x y", "x y", "x_y"],
        ["liver", "spleen"],
        ["..", "liver.stl", r"c:\liver", "tumor (left)*\n"],
        ["", "_"],
    ],
)
def test_each_class_of_each_input_has_a_mesh_of_its_own(names):
    """Inputs may be called as another's name with the begin of a class."""
    found = names_in_files(names)
    inputs = ["a", "a_left", "a_1", "a_1-left", *(f"a_{name}" for name in found)]
    meshes = [f"{stem}_{name}".casefold() for stem in inputs for name in found]
    assert len(set(meshes)) == len(meshes)
    assert all(re.fullmatch(r"[\w-]*", name) for name in found)  # nothing that means something in a path


def test_a_class_keeps_its_name_where_it_can():
    assert names_in_files(["left kidney", "right kidney", "liver"]) == ["left_kidney", "right_kidney", "liver"]
