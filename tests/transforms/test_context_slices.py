# SPDX-License-Identifier: Apache-2.0
"""Neighboring slices as channels, against indices worked out by hand."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms.slices import StackContextSlicesd


def stack(image: torch.Tensor, context_slices: int) -> torch.Tensor:
    return StackContextSlicesd("image", context_slices=context_slices)({"image": image})["image"]


def numbered(channels: int, depth: int) -> MetaTensor:
    """Return slices whose pixels are all 10 * channel + slice."""
    values = 10.0 * torch.arange(channels)[:, None] + torch.arange(depth)
    return MetaTensor(values[:, None, None].repeat(1, 4, 3, 1), affine=np.diag([2.0, 3, 4, 1]))


@pytest.mark.parametrize(
    ("context_slices", "channels", "expected"),  # for each channel of the result, the values of its slices
    [
        (1, 1, [[0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 3]]),
        (2, 1, [[0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 3], [2, 3, 3, 3]]),
        (1, 2, [[0, 0, 1, 2], [10, 10, 11, 12], [0, 1, 2, 3], [10, 11, 12, 13], [1, 2, 3, 3], [11, 12, 13, 13]]),
    ],
)
def test_channels_are_the_slices_around(context_slices: int, channels: int, expected: list) -> None:
    result = stack(numbered(channels, 4), context_slices)
    assert result.shape == (channels * (2 * context_slices + 1), 4, 3, 4)
    assert result[:, 1, 2].tolist() == expected
    assert (result == result[:, :1, :1]).all()
    assert torch.equal(result.affine, numbered(1, 1).affine)


def test_a_lone_slice_is_its_own_neighbor() -> None:
    assert stack(numbered(1, 1), 2).flatten().tolist() == [0] * 5 * 4 * 3


@pytest.mark.parametrize(("shape", "context_slices"), [((2, 4, 3, 5), 0), ((3, 4, 3), 1)])
def test_nothing_to_stack(shape: tuple[int, ...], context_slices: int) -> None:
    image = torch.rand(shape)
    assert torch.equal(stack(image, context_slices), image)


@pytest.mark.parametrize("context_slices", [1, 2, 4])
def test_neighbors_take_no_memory(context_slices: int) -> None:
    image = MetaTensor(torch.rand(3, 7, 5, 11), meta={"filename_or_obj": "a"})
    result = stack(image, context_slices)
    slices = torch.arange(11)
    offsets = range(-context_slices, context_slices + 1)
    expected = torch.cat([image.as_tensor()[..., (slices + k).clamp(0, 10)] for k in offsets])
    assert torch.equal(result.as_tensor(), expected)
    assert result.meta["filename_or_obj"] == "a"
    assert result.untyped_storage().nbytes() == 4 * 3 * 7 * 5 * (11 + 2 * context_slices)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(PyrasegError, match="0 or more, got -1"):
        StackContextSlicesd("image", context_slices=-1)
