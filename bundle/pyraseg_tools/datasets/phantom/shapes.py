# SPDX-License-Identifier: Apache-2.0
"""Smooth shapes as signed distances (mm, negative inside), and the canvas that they are painted on.

Anatomy is a function of a point in the patient's own millimeters, so that an oblique or tilted stack needs nothing of
its own: its voxels are just other points.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

Points = tuple[np.ndarray, np.ndarray, np.ndarray]


def ellipsoid(points: Points, center: tuple, radii: tuple, rotation: np.ndarray | None = None) -> np.ndarray:
    """Return the approximate distance (mm) to an ellipsoid; `rotation` (3, 3) turns the patient's axes into its own."""
    local = [p - np.float32(c) for p, c in zip(points, center, strict=True)]
    if rotation is not None:
        rows = rotation.astype(np.float32)
        local = [row[0] * local[0] + row[1] * local[1] + row[2] * local[2] for row in rows]
    scaled = [p / np.float32(r) for p, r in zip(local, radii, strict=True)]
    level = np.sqrt(sum(s * s for s in scaled))
    slope = np.sqrt(sum((s / np.float32(r)) ** 2 for s, r in zip(scaled, radii, strict=True)))
    tiny = np.float32(1e-4)  # keeps the center, where both vanish, at minus the smallest radius
    return (level - 1) * (level + tiny) / (slope + tiny / np.float32(min(radii)))


def capsule(points: Points, start: ArrayLike, end: ArrayLike, start_radius: float, end_radius: float) -> np.ndarray:
    """Return the distance (mm) to a rod between two points whose radius changes linearly."""
    axis = np.subtract(end, start).astype(np.float32)
    local = [p - np.float32(s) for p, s in zip(points, np.asarray(start), strict=True)]
    along = np.clip(sum(p * a for p, a in zip(local, axis, strict=True)) / np.float32(axis @ axis), 0, 1)
    radius = np.float32(start_radius) + along * np.float32(end_radius - start_radius)
    return np.sqrt(sum((p - along * a) ** 2 for p, a in zip(local, axis, strict=True))) - radius


def smooth_union(first: np.ndarray, second: np.ndarray, radius: float) -> np.ndarray:
    """Join two shapes with a fillet of about `radius` mm."""
    blend = np.maximum(radius - np.abs(first - second), 0) / np.float32(radius)
    return np.minimum(first, second) - blend * blend * np.float32(radius / 4)


def rotation_matrix(angles: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) about x, then y, then z by `angles` in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


@dataclass(frozen=True)
class Waves:
    """A smooth random field: a sum of plane waves, of about unit amplitude."""

    vectors: np.ndarray  # (waves, 3), radians per mm
    phases: np.ndarray  # (waves,)

    @classmethod
    def draw(cls, rng: np.random.Generator, wavelengths: tuple[float, float], count: int = 4) -> "Waves":
        """Draw directions, phases and wavelengths (mm) at random."""
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = rng.uniform(*wavelengths, size=(count, 1))
        return cls((2 * np.pi * directions / lengths).astype(np.float32), rng.uniform(0, 2 * np.pi, count))

    def __call__(self, points: Points) -> np.ndarray:
        """Return the field at the points, float32."""
        total = np.zeros_like(points[0])
        for vector, phase in zip(self.vectors, self.phases, strict=True):
            total += np.sin(vector[0] * points[0] + vector[1] * points[1] + vector[2] * points[2] + np.float32(phase))
        return total / np.float32(np.sqrt(len(self.phases)))


class Canvas:
    """Voxels, as a flat list of points, with the HU and the label painted so far."""

    def __init__(self, points: Points, blend: float) -> None:
        """Start with air; `blend` is the width (mm) over which an edge mixes two tissues (partial volume)."""
        self.points = points
        self.blend = np.float32(blend)
        self.hu = np.full(points[0].shape, -1000, np.float32)
        self.labels = np.zeros(points[0].shape, np.uint8)

    def near(self, center: tuple, reach: ArrayLike) -> np.ndarray:
        """Return the indices of the points in the box of half-widths `reach` (mm) about `center`."""
        inside = np.ones(self.points[0].shape, bool)
        for p, c, r in zip(self.points, center, np.broadcast_to(reach, 3), strict=True):
            inside &= np.abs(p - np.float32(c)) < r
        return np.flatnonzero(inside)

    def at(self, where: np.ndarray | slice) -> Points:
        """Return the points of these indices."""
        x, y, z = self.points
        return x[where], y[where], z[where]

    def paint(
        self,
        distance: np.ndarray,
        hu: float | np.ndarray,
        *,
        where: np.ndarray | slice = slice(None),
        label: int | None = 0,
    ) -> None:
        """Lay a tissue over what is there; `label=None` keeps the labels below it."""
        weight = np.clip(np.float32(0.5) - distance / self.blend, 0, 1)
        below = self.hu[where]
        self.hu[where] = below + weight * (np.asarray(hu, np.float32) - below)
        if label is not None:
            labels = self.labels[where]
            labels[distance < 0] = label
            self.labels[where] = labels
