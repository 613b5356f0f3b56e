# SPDX-License-Identifier: Apache-2.0
"""An image is kept as it was read, without a copy of its values, whatever the preprocessing makes of it."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CopyItemsd

from bundle.pyraseg.transforms import KeepOriginald, OrientSlicesd, ResampleSlicesd, ResizePhotographd, Windowd


def volume(directions: np.ndarray) -> MetaTensor:
    affine = np.eye(4)
    affine[:3, :3] = directions @ np.diag([0.7, 0.9, 3])
    values = 400 * torch.rand(1, 13, 17, 5, generator=torch.Generator().manual_seed(0)) - 200
    return MetaTensor(values, meta={"affine": torch.as_tensor(affine), "inverted": True, "filename_or_obj": "a"})


@pytest.mark.parametrize("directions", [np.eye(3), np.diag([1.0, -1, -1]), np.eye(3)[[0, 2, 1]]])
def test_it_is_what_a_copy_would_be(directions):
    steps = [Windowd("image", windows=["liver"]), OrientSlicesd("image"), ResampleSlicesd("image", spacing=0.9)]
    given = volume(directions)
    before = given.as_tensor().clone()
    kept = Compose([KeepOriginald("image", names="original"), *steps])({"image": given})
    copied = Compose([CopyItemsd("image", names="original"), *steps])({"image": volume(directions)})
    assert kept["original"].data_ptr() == given.data_ptr()
    for key in ("image", "original"):
        assert torch.equal(kept[key].as_tensor(), copied[key].as_tensor())
        torch.testing.assert_close(kept[key].affine, copied[key].affine, rtol=0, atol=0)
        assert kept[key].meta.keys() == copied[key].meta.keys()
        assert len(kept[key].applied_operations) == len(copied[key].applied_operations)
    assert kept["original"].meta["inverted"] is True and kept["image"].meta["inverted"] is False
    assert torch.equal(kept["original"].as_tensor(), before)


def test_a_photograph_is_kept():
    given = MetaTensor(torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8))
    steps = [KeepOriginald("image", names="original"), ResizePhotographd("image", size=(8, 8))]
    done = Compose(steps)({"image": given})
    assert done["original"].shape == (3, 20, 30) and done["original"].dtype == torch.uint8
    assert done["image"].shape == (3, 8, 8)
