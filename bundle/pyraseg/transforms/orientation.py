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

from bundle.pyraseg.dicom import slice_orientation


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

    def inverse(self, data: MetaTensor) -> torch.Tensor:
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
