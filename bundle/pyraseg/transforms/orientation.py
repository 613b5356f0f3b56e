# SPDX-License-Identifier: Apache-2.0
"""Bring slices into one orientation without leaving their acquisition plane."""

from collections.abc import Hashable, Mapping

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Transform
from monai.transforms.spatial.functional import orientation

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


class OrientSlices(InvertibleTransform, Transform):
    """Orient a volume (C, W, H, D) by `slice_orientation`; a 2-D image (C, W, H) has no orientation and stays as it is.

    Unlike MONAI's `Orientation`, a coronal or sagittal series keeps its slices in the acquisition plane: nothing that
    was measured in one slice is spread over many.
    """

    def __call__(self, img: MetaTensor) -> MetaTensor:
        if img.ndim == 3:
            return img
        affine = img.affine.numpy()
        return orientation(img, affine, slice_orientation(affine), False, self.get_transform_info())

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        if data.ndim == 3:
            return data
        affine = self.pop_transform(data)["extra_info"]["original_affine"]
        back = nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], slice_orientation(np.asarray(affine)))
        with self.trace_transform(False):
            return orientation(data, data.affine.numpy(), back, False, self.get_transform_info())


class OrientSlicesd(MapTransform, InvertibleTransform):
    """Apply `OrientSlices` to the keys."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.orient = OrientSlices()

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        return {**data, **{key: self.orient(data[key]) for key in self.key_iterator(data)}}

    def inverse(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        return {**data, **{key: self.orient.inverse(data[key]) for key in self.key_iterator(data)}}
