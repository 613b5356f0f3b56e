# SPDX-License-Identifier: Apache-2.0
"""The grid of a volume that a network sees in three dimensions: its axes, its size, and which stacks have none."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.affines import IN_PLANE, LARGEST_SIDE, THROUGH_PLANE, voxel_sizes
from bundle.pyraseg.dicom.geometry import Geometry

#: Directions, in RAS, in which the axes of a volume grow: to the patient's left, to the back, to the head (LPS).
DIRECTIONS = np.array([IN_PLANE[0], IN_PLANE[1], THROUGH_PLANE[2]])
#: Degrees by which the angle between two axes may differ from a right one: a network sees such a volume as straight.
MOST_TILT = 5.0
#: What to do with a volume that is on no regular grid.
SLICES = "A task for slices takes it as it is (docs/tasks.md)."


def volume_orientation(affine: np.ndarray) -> np.ndarray:
    """Return the permutation and flips that bring any volume onto the axes LPS: W to the left, H to the back, D up.

    That is MONAI's `Orientationd(axcodes="LPS")`, in words `slice_orientation` for an axial series. Axes of oblique
    volumes count as the patient axes that all three together are nearest to.

    Args:
        affine: (4, 4), array indices to RAS mm.

    Returns:
        (3, 2): for each axis of the array, the axis that it becomes and 1 or -1, in nibabel's notation.

    >>> volume_orientation(np.array([[0, 0, 3, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])).tolist()  # sagittal
    [[1.0, -1.0], [2.0, -1.0], [0.0, -1.0]]
    """
    cosines = DIRECTIONS @ (affine[:3, :3] / voxel_sizes(affine))  # (patient axis, array axis)
    axes = np.arange(3)
    order = max(permutations(range(3)), key=lambda targets: np.abs(cosines[list(targets), axes]).sum())
    signs = np.where(cosines[list(order), axes] < 0, -1.0, 1.0)
    return np.stack([np.asarray(order, float), signs], axis=1)


def resampled_shape(
    counts: Sequence[int], voxels: Sequence[float], spacing: Sequence[float], *, name: object
) -> tuple[int, int, int]:
    """Return how many voxels a volume has along its axes once they are `spacing` mm large, at least 1.

    Args:
        counts: its voxels along each axis.
        voxels: mm of a voxel along each axis.
        spacing: mm of a voxel that the model sees, along the same axes.
        name: of the image, for messages.

    Raises:
        PyrasegError: more than `LARGEST_SIDE` along an axis, for which no memory suffices, or the whole volume is less
            than half a voxel along one that has several.

    >>> resampled_shape((512, 512, 60), (0.75, 0.75, 5), (1.5, 1.5, 2.5), name="image.nii")
    (256, 256, 120)
    """
    sizes = [round(count * float(of) / float(to)) for count, of, to in zip(counts, voxels, spacing, strict=True)]
    if max(sizes) > LARGEST_SIDE or any(size < 1 < count for size, count in zip(sizes, counts, strict=True)):
        raise PyrasegError(
            f"{name} has {_by(counts)} voxels of {_by(voxels)} mm. At the spacing of the model, {_by(spacing)} mm, it "
            f"would have {_by(sizes)}, and 1 to {LARGEST_SIDE} along an axis are possible. Correct the unit or the "
            "voxel size in its header or, if they are right, use a model with a spacing for such images."
        )
    first, second, third = (max(1, size) for size in sizes)
    return first, second, third


def require_volume(geometry: Geometry | None, *, name: object) -> Geometry:
    """Return the geometry of a stack of slices that is a volume: evenly spaced, with axes at right angles.

    Args:
        geometry: where the slices lie; None: nowhere in a patient.
        name: of the image, for messages.

    Raises:
        PyrasegError: the slices have no patient position, their distances differ or one is missing, or they are tilted
            against their normal by more than `MOST_TILT` degrees.
    """
    if geometry is None:
        raise PyrasegError(
            f"{name} has no patient position (a radiograph, an ultrasound image or a photograph), and this model is "
            "for volumes, whose voxels have a size in mm. `pyraseg models` lists the included models, and --model "
            "gives one to `pyraseg segment`."
        )
    if not geometry.is_evenly_spaced:
        raise PyrasegError(
            f"{name} has slices {geometry.gaps.min():.4g} to {geometry.gaps.max():.4g} mm apart, not on an even grid "
            f"(a missing slice, or several blocks), and this model looks at volumes in three dimensions. {SLICES}"
        )
    axes = geometry.affine[:3, :3] / voxel_sizes(geometry.affine)
    cosine = max(abs(axes[:, first] @ axes[:, second]) for first, second in ((0, 1), (0, 2), (1, 2)))
    tilt = np.degrees(np.arcsin(min(cosine, 1.0)))
    if tilt > MOST_TILT:
        raise PyrasegError(
            f"{name} is a stack whose slices are tilted by {tilt:.1f} degrees against the way they are stacked (a "
            f"tilted gantry), and this model looks at volumes in three dimensions, up to {MOST_TILT:g} degrees. "
            f"{SLICES}"
        )
    return geometry


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)
