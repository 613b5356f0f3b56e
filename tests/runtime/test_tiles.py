# SPDX-License-Identifier: Apache-2.0
"""Tiles of a volume and their blending, judged by MONAI's sliding windows."""

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import sliding_window_inference
from torch import nn

from bundle.pyraseg.runtime.tiles import blended, mirrored, tile_padding, tile_starts, tile_weights
from bundle.pyraseg.runtime.volume_labels import labels_of

TILE = (20, 16, 12)


def network() -> nn.Module:
    """Return a network whose answer depends on what is at the border of a tile, so that blending matters."""
    torch.manual_seed(0)
    layers = (nn.Conv3d(2, 6, (5, 3, 7), padding=(2, 1, 3)), nn.ReLU(), nn.Conv3d(6, 3, 5, padding=2))
    return nn.Sequential(*layers).eval()


@torch.no_grad()
def ours(image: torch.Tensor, net: nn.Module, overlap: float, flips=()) -> list[np.ndarray]:
    volume = np.pad(image[0].numpy(), [(0, 0), *tile_padding(image.shape[2:], TILE)], mode="edge")
    average = mirrored(lambda tile: net(torch.from_numpy(tile)[None])[0].numpy(), flips)
    return list(blended(image.shape[2:], TILE, overlap, lambda place: average(volume[(slice(None), *place)])))


@pytest.mark.parametrize("size", [(41, 37, 50), (20, 16, 12), (15, 40, 7), (23, 9, 12), (61, 16, 13)])
@pytest.mark.parametrize("overlap", [0.5, 0.25, 0.0, 0.7])
@torch.no_grad()
def test_blended_tiles_are_those_of_monai(size: tuple[int, int, int], overlap: float) -> None:
    image, net = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(1)), network()
    expected = sliding_window_inference(image, TILE, 1, net, overlap, "gaussian", padding_mode="replicate")[0]
    slabs = ours(image, net, overlap)
    assert all(slab.shape[3] <= TILE[2] for slab in slabs)
    assert np.abs(np.concatenate(slabs, axis=3) - expected.numpy()).max() < 1e-5


@torch.no_grad()
def test_mirror_images_are_averaged() -> None:
    image, net = torch.rand(1, 2, 31, 16, 20, generator=torch.Generator().manual_seed(1)), network()
    flips = [[0], [1, 2]]

    def average(tile: torch.Tensor) -> torch.Tensor:
        return (net(tile) + net(tile.flip(2)).flip(2) + net(tile.flip(3, 4)).flip(3, 4)) / 3

    expected = sliding_window_inference(image, TILE, 1, average, 0.5, "gaussian")[0]
    found = np.concatenate(ours(image, net, 0.5, flips), axis=3)
    assert np.abs(found - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize("size", range(16, 120, 7))
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_starts_are_those_of_monai(size: int, overlap: float) -> None:
    step = 16 if size == 16 else max(1, int(16 * (1 - overlap)))
    expected = [place[0].start for place in dense_patch_slices((size,), (16,), (step,))]
    assert tile_starts(size, 16, overlap) == expected


@pytest.mark.parametrize("tile", [TILE, (1, 1, 1), (3, 64, 7)])
def test_weights_are_those_of_monai(tile: tuple[int, int, int]) -> None:
    expected = compute_importance_map(tile, mode="gaussian").numpy()
    np.testing.assert_allclose(tile_weights(tile), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [(41, 30, 25), (12, 9, 5), (20, 16, 12), (20, 33, 1), (7, 40, 40)])
@pytest.mark.parametrize("rare", [False, True], ids=["classes everywhere", "few spots"])
def test_labels_are_those_of_torch(size: tuple[int, int, int], rare: bool) -> None:
    """Interpolated probabilities and their argmax, of logits in slabs of several depths."""
    shape = (20, 16, 12)
    logits = torch.randn(4, *shape, generator=torch.Generator().manual_seed(2))
    if rare:
        logits[0] += 9
        logits[2, 3:5, 2, 4:9] += 20
        logits[3, 15, 12, 11] += 20
        logits[1] -= 20
    probabilities = torch.nn.functional.interpolate(logits.softmax(0)[None], size, mode="trilinear")[0]
    first, second = probabilities.topk(2, dim=0).values
    slabs = (np.ascontiguousarray(part) for part in np.split(logits.numpy(), [1, 2, 7, 11], axis=3))
    found = labels_of(slabs, shape, size)
    assert found.dtype == np.uint8 and len(np.unique(found)) > 1
    different = torch.from_numpy(found) != probabilities.argmax(0)
    assert ((first - second)[different] < 1e-5).all()


def test_of_equal_probabilities_the_first_class_counts() -> None:
    assert not labels_of([np.zeros((3, 4, 4, 4), np.float32)], (4, 4, 4), (7, 5, 9)).any()
