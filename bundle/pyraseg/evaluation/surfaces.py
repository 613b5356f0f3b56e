# SPDX-License-Identifier: Apache-2.0
"""How far the surfaces of two masks lie apart: Hausdorff distance and surface Dice.

Surfaces are those of Nikolov et al. (J Med Internet Res 2021; 23(7): e26151): every corner between voxels, or pixels,
at which a mask begins or ends is an element with the area, or length, of the surface that passes there. MONAI has the
tables of areas. Distances are taken between places in the patient, so that tilted and unevenly spaced stacks are right,
which MONAI's own metrics, that know a spacing alone, cannot be. Elements count by their area: where slices are thick,
a count of voxels would be one of the pixels in the slices.
"""

from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics.utils import get_mask_edges
from scipy.ndimage import find_objects
from scipy.spatial import KDTree

from bundle.pyraseg.dicom import Geometry

#: mm, or pixels, by which a distance that equals the tolerance may come out larger.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Surface:
    """Distances from the elements of one surface to the nearest element of the other, ascending, and their areas."""

    distances: np.ndarray
    areas: np.ndarray

    def percentile(self, percent: float) -> float:
        """Return the distance that `percent` % of the area stay below or reach."""
        cumulated = np.cumsum(self.areas) / self.areas.sum()
        return float(self.distances[min(int(np.searchsorted(cumulated, percent / 100)), len(self.distances) - 1)])

    def area_within(self, tolerance: float) -> float:
        """Return the area of the elements that are no further than `tolerance`."""
        return float(self.areas[self.distances <= tolerance + ROUNDING].sum())


def surface_distances(prediction: np.ndarray, truth: np.ndarray, geometry: Geometry | None) -> tuple[Surface, Surface]:
    """Return the predicted surface seen from the true one, and the other way round.

    Args:
        prediction: boolean mask, (W, H[, D]), not empty. A mask that reaches the border of the volume ends there.
        truth: the same.
        geometry: of the whole volume; None counts in pixels. Where slices have a gap between them, a mask ends there.
    """
    parts = [(slice(None), geometry)] if geometry is None else geometry.parts()
    elements = [
        _elements(prediction[..., block], truth[..., block], part)
        for block, part in parts
        if (prediction[..., block] | truth[..., block]).any()
    ]
    places, areas = (
        [np.concatenate(of_mask) for of_mask in zip(*kind, strict=True)] for kind in zip(*elements, strict=True)
    )

    def surface(this: int, other: int) -> Surface:
        distances = KDTree(places[other], leafsize=32).query(places[this])[0]
        order = np.argsort(distances, kind="stable")
        return Surface(distances[order], areas[this][order])

    return surface(0, 1), surface(1, 0)


def _elements(
    prediction: np.ndarray, truth: np.ndarray, geometry: Geometry | None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the places and the areas of the elements of both surfaces, in slices without a gap between them."""
    (box,) = find_objects((prediction | truth).astype(np.uint8))
    masks = [torch.from_numpy(np.pad(mask[box], 1)) for mask in (prediction, truth)]
    edges_and_areas = get_mask_edges(*masks, crop=False, spacing=spacing_of(geometry, truth.ndim))
    edges, areas = ([found.numpy() for found in pair] for pair in (edges_and_areas[:2], edges_and_areas[2:]))
    # The corner k of the padded box lies between its voxels k and k + 1, which are k - 1 and k of the box.
    places = [np.argwhere(edge) + [part.start for part in box] - 0.5 for edge in edges]
    if geometry is not None:
        places = [geometry.points(indices) for indices in places]
    return places, [area[edge].astype(float) for area, edge in zip(areas, edges, strict=True)]


def hausdorff(surfaces: tuple[Surface, Surface], percent: float = 95.0) -> float:
    """Return the larger of the two directed Hausdorff distances at a percentile of the area, in mm or pixels."""
    return max(surface.percentile(percent) for surface in surfaces)


def surface_dice(surfaces: tuple[Surface, Surface], tolerance: float) -> float:
    """Return the share of both surfaces that is no further than `tolerance` from the other, 0 to 1."""
    return sum(s.area_within(tolerance) for s in surfaces) / sum(float(s.areas.sum()) for s in surfaces)


def spacing_of(geometry: Geometry | None, dimensions: int) -> tuple[float, ...]:
    """Return the distance of neighbors along each axis, in mm, or in pixels where the position is unknown."""
    return (1.0,) * dimensions if geometry is None else geometry.spacing
