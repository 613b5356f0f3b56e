# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from bundle.pyraseg.transforms import sample_volume

SIZE = (7, 9, 5)


@pytest.mark.parametrize("size", [SIZE, (1, 9, 5), (7, 1, 5), (7, 9, 1), (1, 1, 1)])
@pytest.mark.parametrize(("mode", "order"), [("bilinear", 1), ("nearest", 0)])
def test_agrees_with_scipy_inside_and_at_the_border(size: tuple[int, ...], mode: str, order: int) -> None:
    generator = torch.Generator().manual_seed(0)
    volume = torch.rand(2, *size, generator=generator)
    places = torch.rand(3, 500, generator=generator) * (torch.tensor(size)[:, None] + 4.0) - 2.5  # also outside
    result = sample_volume(volume, places, mode=mode)
    for values, channel in zip(result, volume, strict=True):
        expected = map_coordinates(channel.numpy(), places.numpy(), order=order, mode="nearest")
        assert np.allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_corners_and_voxel_centers_are_exact(mode: str) -> None:
    volume = torch.rand(1, *SIZE)
    places = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in SIZE), indexing="ij")).flatten(1)
    assert torch.equal(sample_volume(volume, places, mode=mode), volume.flatten(1))


def test_zeros_begin_half_a_voxel_from_the_last_centers() -> None:
    volume = torch.full((1, *SIZE), 3.0)
    along = torch.tensor([-0.6, -0.4, 0.0, 6.4, 6.6])
    places = torch.stack([along, torch.full_like(along, 4.0), torch.full_like(along, 2.0)])
    for mode in ("bilinear", "nearest"):
        assert sample_volume(volume, places, mode=mode, padding_mode="zeros").tolist() == [[0, 3, 3, 3, 0]]


def test_nearest_is_exact_for_numbers_that_a_float_cannot_hold() -> None:
    volume = torch.tensor([2**24 + 1, 2**40 + 3]).view(1, 2, 1, 1)
    result = sample_volume(volume, torch.tensor([[0.2, 0.9], [0, 0], [0, 0]]), mode="nearest")
    assert result.tolist() == [[2**24 + 1, 2**40 + 3]]
