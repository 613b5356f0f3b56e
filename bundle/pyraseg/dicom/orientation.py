# SPDX-License-Identifier: Apache-2.0
"""Which way the axes of a stack of slices run, and which way they are shown."""

import numpy as np

#: From DICOM's patient coordinates to those of NIfTI.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: Directions, in RAS, in which an axis of a slice shall grow: to the patient's left, to the back, to the feet.
IN_PLANE = np.diag([-1.0, -1.0, -1.0])
#: Directions in which the slice axis shall grow: to the patient's left, to the back, to the head.
THROUGH_PLANE = np.diag([-1.0, -1.0, 1.0])


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
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    normal = np.cross(directions[:, 0], directions[:, 1])
    through = int(np.abs(normal).argmax())
    first, second = (axis for axis in range(3) if axis != through)
    straight = abs(directions[first, 0]) + abs(directions[second, 1])
    swapped = abs(directions[first, 1]) + abs(directions[second, 0])
    order = (0, 1) if straight >= swapped else (1, 0)
    result = np.empty((3, 2))
    for target, (source, patient) in enumerate(zip(order, (first, second), strict=True)):
        result[source] = target, 1 if directions[:, source] @ IN_PLANE[patient] >= 0 else -1
    result[2] = 2, 1 if directions[:, 2] @ THROUGH_PLANE[through] >= 0 else -1
    return result
