# SPDX-License-Identifier: Apache-2.0
"""Surfaces of what was found, for 3-D viewers and printers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.optimize import brentq
from skimage.measure import marching_cubes

from bundle.pyraseg.core import PyrasegError, Structures, names_in_files, replacing
from bundle.pyraseg.dicom import Geometry
from bundle.pyraseg.inference.prediction import Prediction

HALF_WAY, OUTERMOST = 0.5, 0.02  # from a voxel outside a mask to one inside
VOLUME_TOLERANCE = 0.01
HEADER = "SPACE=LPS"  # 3D Slicer reads this, and takes LPS for granted without it


class MeshWriter:
    """Write `<name>_<class>.stl` or `.ply` for every class that was found, in patient coordinates (LPS, mm).

    `names_in_files` says what stands for a class.

    One slice, or an image without a patient position, makes no surface.

    Args:
        class_names: names of all classes, background first.
        format: "stl" or "ply", both binary.
        regions: the classes of each region where these are predicted, see `core.Structures`, each of which has a mesh.

    Raises:
        PyrasegError: another format.
    """

    def __init__(
        self, *, class_names: Sequence[str], format: str = "stl", regions: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        formats = {"stl": write_stl, "ply": write_ply}
        if format not in formats:
            raise PyrasegError(f"There is no mesh format {format!r}; there are {' and '.join(formats)}.")
        self.structures = Structures(class_names, regions)
        self.suffix = format
        self.write = formats[format]

    def __call__(self, prediction: Prediction) -> list[Path] | None:
        geometry = prediction.geometry
        if geometry is None or len(geometry) < 2:
            return None
        written = []
        for value, path in enumerate(self.paths(prediction), 1):
            mask = self.structures.mask(prediction.slices, value)
            if mask.any():
                with replacing(path) as temporary:
                    self.write(temporary, *surface(mask, geometry))
                written.append(path)
            else:
                path.unlink(missing_ok=True)  # of a run before, which found something
        return written

    def paths(self, prediction: Prediction) -> list[Path]:
        """Return the files of the classes 1, 2, ..., whether they are there or not."""
        names = names_in_files(self.structures.names[1:])
        return [prediction.stem.with_name(f"{prediction.stem.name}_{name}.{self.suffix}") for name in names]


def surface(mask: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Return the surface of a mask by marching cubes (Lewiner et al., Journal of Graphics Tools 2003).

    Half-way between voxels inside and outside, it cuts the corners off, which takes a tenth from a region of a few
    hundred voxels. Where it misses more than 1 % of the volume, it is therefore moved outward, by the same share of the
    way everywhere, until it is right. A gap between slices is not bridged: each block has a surface of its own.

    Args:
        mask: (N, rows, columns) bool, not empty.
        geometry: where the slices lie; tilted and unevenly spaced stacks are exact.

    Returns:
        Vertices (n, 3) in LPS mm, and triangles (m, 3) of vertex indices, anticlockwise seen from outside.
    """
    surfaces = [_surface(mask[block], part) for block, part in geometry.parts() if mask[block].any()]
    before = np.cumsum([0, *(len(points) for points, _ in surfaces)])
    triangles = [triangles + count for (_, triangles), count in zip(surfaces, before, strict=False)]
    return np.concatenate([points for points, _ in surfaces]), np.concatenate(triangles)


def _surface(mask: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Return the surface of a mask whose slices have no gap between them."""
    volume = float(mask.sum(axis=(1, 2)) @ geometry.voxel_volumes)
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    padded = np.pad(mask[box], 1).astype(np.float32)
    corner = [part.start - 1 for part in box]

    def at(level: float) -> tuple[np.ndarray, np.ndarray]:
        vertices, triangles, *_ = marching_cubes(padded, level)
        return geometry.points((vertices + corner)[:, ::-1]), triangles

    def excess(level: float) -> float:
        return abs(signed_volume(*at(level))) / volume - 1

    level = HALF_WAY
    if excess(HALF_WAY) < -VOLUME_TOLERANCE and excess(OUTERMOST) > 0:
        level = brentq(excess, OUTERMOST, HALF_WAY, xtol=0.005)
    points, triangles = at(level)
    if signed_volume(points, triangles) < 0:  # the axes of the array are left-handed in the patient
        triangles = triangles[:, ::-1]
    return points, triangles


def signed_volume(vertices: np.ndarray, triangles: np.ndarray) -> float:
    """Return the volume inside a closed surface, mm³, by the divergence theorem; positive where normals point out."""
    a, b, c = (vertices[triangles[:, corner]] - vertices[0] for corner in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def write_stl(path: Path, vertices: np.ndarray, triangles: np.ndarray) -> None:
    """Write binary STL: for each triangle its normal and its corners."""
    corners = vertices[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    records = np.zeros(len(triangles), np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")]))
    records["normal"] = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    records["corners"] = corners
    path.write_bytes(HEADER.encode().ljust(80) + np.uint32(len(triangles)).tobytes() + records.tobytes())


def write_ply(path: Path, vertices: np.ndarray, triangles: np.ndarray) -> None:
    """Write binary little-endian PLY: vertices and triangles."""
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {HEADER}",
        f"element vertex {len(vertices)}",
        *(f"property float {axis}" for axis in "xyz"),
        f"element face {len(triangles)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    faces = np.empty(len(triangles), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    faces["count"], faces["corners"] = 3, triangles
    path.write_bytes(("\n".join(header) + "\n").encode() + vertices.astype("<f4").tobytes() + faces.tobytes())
