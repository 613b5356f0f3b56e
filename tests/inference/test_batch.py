# SPDX-License-Identifier: Apache-2.0
"""One input becomes the batch that MONAI's collation makes of it, without a copy."""

import numpy as np
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate

from bundle.pyraseg.inference.inputs import as_batch
from bundle.pyraseg.transforms.slices import OrientSlicesd, StackContextSlicesd


def loaded() -> dict:
    """Return an image with the history of a transform, another one and a name."""
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])
    meta = {"files": ["a", "b"], "has_geometry": True, "voi": [()], "slice_positions": np.eye(3), "inverted": False}
    item = {"image": MetaTensor(torch.rand(2, 5, 4, 3), affine=affine, meta=meta), "name": "a case"}
    item["original"] = MetaTensor(torch.rand(1, 5, 4, 3), affine=affine, meta=meta)
    item["projection"] = MetaTensor(torch.rand(1, 5, 4))
    return StackContextSlicesd("image", context_slices=1)(OrientSlicesd("image")(item))


def test_a_batch_is_that_of_monai_without_a_copy() -> None:
    item = loaded()
    expected, found = list_data_collate([item]), as_batch([item])
    assert found.keys() == expected.keys()
    assert found["name"] == expected["name"]
    for key in ("image", "original", "projection"):
        one, other = found[key], expected[key]
        assert torch.equal(one.as_tensor(), other.as_tensor())
        assert one.is_batch
        assert one.spatial_ndim == other.spatial_ndim
        assert one.data_ptr() == item[key].data_ptr()
        assert repr(one.applied_operations) == repr(other.applied_operations)
        assert repr(one.meta) == repr(other.meta)
    for one, other in zip(decollate_batch(found), decollate_batch(expected), strict=True):
        assert repr(one["image"].meta) == repr(other["image"].meta)
        assert torch.equal(one["image"].affine, other["image"].affine)
        assert repr(one["image"].applied_operations) == repr(other["image"].applied_operations)
