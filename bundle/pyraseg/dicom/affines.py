# SPDX-License-Identifier: Apache-2.0
"""The mathematics of where voxels lie: affines of stacks of slices, and the places of slices along their normal.

An affine (4, 4) leads from (column, row, slice) to millimetres. Those of DICOM are to LPS (x to the patient's left, y
to the back, z to the head), those of NIfTI and MONAI to RAS.
"""

from collections.abc import Sequence

import numpy as np

from bundle.pyraseg.core import PyrasegError

#: Pixels along a side that no slice has at the spacing of a model; with more of them, a size in mm is wrong.
LARGEST_SIDE = 8192
#: From DICOM's patient coordinates to those of NIfTI, and back.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: Directions, in RAS, in which an axis of a slice shall grow: to the patient's left, to the back, to the feet.
IN_PLANE = np.diag([-1.0, -1.0, -1.0])
#: Directions in which the slice axis shall grow: to the patient's left, to the back, to the head.
THROUGH_PLANE = np.diag([-1.0, -1.0, 1.0])


def apply_affine(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the places (n, 3) of points (n, 3).

    >>> apply_affine(np.diag([0.5, 0.5, 3, 1]), [[2, 4, 1]]).tolist()
    [[1.0, 2.0, 3.0]]
    """
    return np.asarray(points) @ affine[:3, :3].T + affine[:3, 3]


def voxel_sizes(affine: np.ndarray) -> np.ndarray:
    """Return the lengths of the steps along the three axes, (3,) mm; that of slices may be oblique to them.

    >>> voxel_sizes(np.diag([-0.5, 0.5, 3, 1])).tolist()
    [0.5, 0.5, 3.0]
    """
    return np.linalg.norm(affine[:3, :3], axis=0)


def resampled_size(counts: Sequence[int], pixels: Sequence[float], spacing: float, *, name: object) -> tuple[int, int]:
    """Return how many pixels a slice has along its sides once they are `spacing` mm large, at least 1.

    Args:
        counts: its pixels along either side.
        pixels: mm of a pixel along either side.
        spacing: mm of a pixel that the model sees.
        name: of the image, for messages.

    Raises:
        PyrasegError: more than `LARGEST_SIDE` along a side, for which no memory suffices, or the whole slice is less
            than half a pixel.

    >>> resampled_size((512, 300), (0.5, 0.75), 2.0, name="image.nii")
    (128, 112)
    """
    first, second = (round(count * float(pixel) / spacing) for count, pixel in zip(counts, pixels, strict=True))
    if max(first, second) > LARGEST_SIDE or min(first, second) < 1 < min(counts):
        raise PyrasegError(
            f"{name} has {counts[0]} x {counts[1]} pixels of {pixels[0]:.4g} x {pixels[1]:.4g} mm. At the spacing of "
            f"the model, {spacing:g} mm, it would have {first} x {second}, and 1 to {LARGEST_SIDE} along a side are "
            "possible. Correct the unit or the pixel size in its header or, if they are right, use a model with a "
            "spacing for such images."
        )
    return max(1, first), max(1, second)


def unit_normal(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the unit vector (3,) that stands on two others, by the right-hand rule.

    >>> unit_normal([2, 0, 0], [0, 3, 0]).tolist()
    [0.0, 0.0, 1.0]
    """
    normal = np.cross(first, second)
    return normal / np.linalg.norm(normal)


def slice_widths(heights: np.ndarray) -> np.ndarray:
    """Return how much of the normal each slice stands for, half the way to either neighbor, (N,) mm; N is 2 or more.

    Args:
        heights: (N,) places of the slices along their normal, ascending or descending.

    >>> slice_widths([0, 1, 2, 12]).tolist()
    [1.0, 1.0, 5.5, 10.0]
    """
    return np.abs(np.gradient(np.asarray(heights, float)))


def nearest_slices(heights: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the slice nearest to each point, (n,), and the signed mm from it along the normal, (n,).

    Args:
        heights: (N,) places of the slices along their normal, in any order.
        points: (n,) the same of the points.

    >>> [values.tolist() for values in nearest_slices([4, 0, 2], [0.5, 3.5])]
    [[1, 0], [0.5, -0.5]]
    """
    heights, points = np.asarray(heights, float), np.asarray(points, float)
    order = np.argsort(heights)
    middles = (heights[order][1:] + heights[order][:-1]) / 2
    nearest = order[np.searchsorted(middles, points)]
    return nearest, points - heights[nearest]


def slice_orientation(affine: np.ndarray) -> np.ndarray:
    """Return the permutation and flips that display a stack of slices as a radiologist sees them.

    The last axis keeps numbering the slices and grows to the head (axial), the back (coronal) or the left (sagittal).
    The plane's two axes are swapped and flipped so that the first grows to the left (in sagittal slices to the back)
    and the second to the back (in coronal and sagittal slices to the feet). Axes of oblique stacks count as the patient
    axis that they are nearest to.

    Args:
        affine: (4, 4), array indices to RAS mm; may be sheared, as that of a tilted gantry.

    Returns:
        (3, 2): for each axis of the array, the axis that it becomes and 1 or -1, in nibabel's notation.

    >>> slice_orientation(np.diag([1, -1, 3, 1])).tolist()  # columns grow to the right, which is shown to the left
    [[0.0, -1.0], [1.0, 1.0], [2.0, 1.0]]
    """
    directions = affine[:3, :3] / voxel_sizes(affine)
    through = int(np.abs(np.cross(directions[:, 0], directions[:, 1])).argmax())
    first, second = (axis for axis in range(3) if axis != through)
    straight = abs(directions[first, 0]) + abs(directions[second, 1])
    swapped = abs(directions[first, 1]) + abs(directions[second, 0])
    order = (0, 1) if straight >= swapped else (1, 0)
    result = np.empty((3, 2))
    for target, (source, patient) in enumerate(zip(order, (first, second), strict=True)):
        result[source] = target, 1 if directions[:, source] @ IN_PLANE[patient] >= 0 else -1
    result[2] = 2, 1 if directions[:, 2] @ THROUGH_PLANE[through] >= 0 else -1
    return result
