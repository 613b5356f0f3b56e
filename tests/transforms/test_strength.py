# SPDX-License-Identifier: Apache-2.0
import pytest
from monai.transforms import Compose, OneOf, RandFlipd

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms.deformation import RandDeformd
from bundle.pyraseg.transforms.intensity import RandBlurd, RandNoised
from bundle.pyraseg.transforms.strength import set_strength


def test_reaches_every_scaled_transform_of_a_nested_compose() -> None:
    deform, noise, blur, flip = RandDeformd("image"), RandNoised("image"), RandBlurd("image"), RandFlipd("image")
    transform = Compose([flip, deform, Compose([noise, OneOf([blur, flip])])])
    assert deform.strength == 1.0
    assert set_strength(transform, 0.25) == 3
    assert (deform.strength, noise.strength, blur.strength) == (0.25, 0.25, 0.25)
    assert not hasattr(flip, "strength")


def test_sets_only_the_transforms_it_is_given() -> None:
    first, second = RandBlurd("image"), RandBlurd("image")
    assert set_strength([first], 0.5) == 1
    assert second.strength == 1.0


def test_counts_nothing_where_there_is_nothing_to_scale() -> None:
    assert set_strength(Compose([RandFlipd("image")]), 0.5) == 0


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_refuses_a_strength_outside_its_range(strength: float) -> None:
    with pytest.raises(PyrasegError, match="from 0 \\(none\\) to 1 \\(full\\)"):
        set_strength(Compose([RandBlurd("image")]), strength)
