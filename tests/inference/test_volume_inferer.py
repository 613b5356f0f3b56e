# SPDX-License-Identifier: Apache-2.0
"""Labels made of tiles, slab by slab, are those that MONAI's own inferer and transforms make of the whole volume."""

import logging

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.inferers import SlidingWindowInferer
from monai.transforms import Activationsd, AsDiscreted, Compose, CopyItemsd, Invertd
from torch import nn

from bundle.pyraseg.core import PyrasegError, mendable
from bundle.pyraseg.inference import TileInferer, VolumeSlabInferer
from bundle.pyraseg.transforms import InvertArgmaxd, OrientVolumesd, RequireFinited, ResampleVolumesd
from tests.inference.test_slabs import DIRECTIONS

PATCH = (24, 16, 20)
SOFTMAX = Activationsd("pred", softmax=True)


class Convolutions(nn.Module):
    """A network that sees along each axis otherwise, so that nothing swapped or mirrored passes."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv3d(1, 8, (3, 7, 5), padding=(1, 3, 2))
        self.last = nn.Conv3d(8, classes, 3, padding=1)
        with torch.no_grad():  # so that every class is the largest somewhere
            assert self.last.bias is not None
            self.last.bias -= self.last(self.first(torch.rand(1, 1, *PATCH)).relu()).mean((0, 2, 3, 4))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(image.shape))
        return 20 * self.last(self.first(image).relu())


def volume(directions: np.ndarray, shape: tuple[int, ...]) -> MetaTensor:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions @ np.diag([0.8, 1.1, 3]), (3, 4, 5)
    values = torch.rand(1, *shape, generator=torch.Generator().manual_seed(3))
    return MetaTensor(values, affine=torch.as_tensor(affine))


def chain_of(spacing: tuple[float, ...] = (1.3, 1.2, 2.1)) -> Compose:
    return Compose([OrientVolumesd("image"), ResampleVolumesd("image", spacing=spacing)])


def by_monai(item: dict, chain: Compose, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the labels, and by how much the largest probability is above the next, on the grid of the input."""
    inverted = Compose([SOFTMAX, Invertd("pred", chain, "image", nearest_interp=False)])
    probabilities = inverted({"image": item["image"], "pred": logits})["pred"]
    labels = AsDiscreted("pred", argmax=True)({"pred": probabilities})["pred"]
    first, second = probabilities.as_tensor().topk(2, dim=0).values
    return labels.as_tensor(), (first - second)[None]


@pytest.mark.parametrize("shape", [(41, 37, 17), (12, 11, 40), (30, 20, 1)], ids=["large", "narrow", "one slice"])
@pytest.mark.parametrize("directions", DIRECTIONS.values(), ids=DIRECTIONS)
@torch.no_grad()
def test_slabs_give_the_labels_of_the_whole(directions: np.ndarray, shape: tuple[int, ...]) -> None:
    image, chain, network = volume(directions, shape), chain_of(), Convolutions()
    item = chain({"image": image})
    batch = list_data_collate([item])["image"]
    windows = SlidingWindowInferer(PATCH, 1, 0.5, "gaussian", padding_mode="replicate")
    logits = windows(batch, network)[0]
    expected, margin = by_monai(item, chain, logits)
    tiles = TileInferer(patch_size=PATCH, overlap=0.5)
    torch.testing.assert_close(tiles(batch, network)[0].as_tensor(), logits.as_tensor(), atol=1e-5, rtol=0)
    after = Compose([RequireFinited("pred"), SOFTMAX, InvertArgmaxd("pred", transform=chain, orig_keys="image")])
    inferer = VolumeSlabInferer(tiles, postprocessing=after, classes=4)
    network.shapes.clear()
    (found,) = decollate_batch(inferer(batch, network))
    assert set(network.shapes) == {(1, 1, *PATCH)}
    assert inferer.rest.transforms == () and found.dtype == torch.uint8 and len(found.unique()) > 2
    torch.testing.assert_close(found.affine, image.affine)
    different = found.as_tensor() != expected
    assert (margin[different] < 1e-4).all() and different.float().mean() < 1e-3


@torch.no_grad()
def test_what_keeps_probabilities_gets_the_logits_of_the_whole_volume() -> None:
    image, chain, network = volume(DIRECTIONS["sagittal"], (41, 37, 17)), chain_of(), Convolutions()
    item = chain({"image": image})
    batch = list_data_collate([item])["image"]
    after = Compose(
        [
            SOFTMAX,
            CopyItemsd("pred", names="probabilities"),
            Invertd("probabilities", chain, "image", nearest_interp=False),
            InvertArgmaxd("pred", transform=chain, orig_keys="image"),
        ]
    )
    tiles = TileInferer(patch_size=PATCH)
    inferer = VolumeSlabInferer(tiles, postprocessing=after, classes=4)
    logits = inferer(batch, network)
    assert logits.shape == (1, 4, *item["image"].shape[1:])
    done = inferer.rest({"image": item["image"], "pred": logits[0]})
    assert done["probabilities"].shape == (4, *image.shape[1:])
    torch.testing.assert_close(done["probabilities"].sum(0), torch.ones(image.shape[1:]))
    assert torch.equal(done["pred"].as_tensor(), done["probabilities"].as_tensor().argmax(0, keepdim=True))
    slabs = VolumeSlabInferer(
        tiles, postprocessing=Compose([SOFTMAX, InvertArgmaxd("pred", transform=chain, orig_keys="image")]), classes=4
    )
    assert (slabs(batch, network)[0] == done["pred"]).float().mean() > 0.9999
    whole = VolumeSlabInferer(tiles, postprocessing=slabs.to_labels, classes=4, whole=True)
    assert whole(batch, network).shape == logits.shape


@torch.no_grad()
def test_mirror_images_are_averaged_tile_by_tile() -> None:
    batch, network = torch.rand(1, 1, *PATCH), Convolutions()
    found = TileInferer(patch_size=PATCH, flips=[[0], [1, 2]])(batch, network)
    expected = (network(batch) + network(batch.flip(2)).flip(2) + network(batch.flip(3, 4)).flip(3, 4)) / 3
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_tile_that_is_too_much_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    network = Convolutions()
    batch = torch.rand(1, 1, 96, 40, 20)
    expected = TileInferer(patch_size=(96, 40, 20))(batch, network)

    def small(images: torch.Tensor) -> torch.Tensor:
        if images.shape[2] > 64:
            raise MemoryError
        return network(images)

    with caplog.at_level(logging.WARNING):
        found = TileInferer(patch_size=(96, 40, 20))(batch, small)
    assert "cut into tiles of 64 x 40 x 20" in caplog.text
    assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.95


@torch.no_grad()
def test_logits_that_are_not_finite_are_refused() -> None:
    image, chain = volume(np.eye(3), (30, 20, 10)), chain_of()
    image.meta["filename_or_obj"] = "case_7.nii.gz"
    batch = list_data_collate([chain({"image": image})])["image"]
    after = Compose([RequireFinited("pred"), SOFTMAX, InvertArgmaxd("pred", transform=chain, orig_keys="image")])
    inferer = VolumeSlabInferer(TileInferer(patch_size=PATCH), postprocessing=after, classes=4)

    def broken(images: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(1, 4, *images.shape[2:])
        logits[0, 1, 3, 3, 3] = torch.inf
        return logits

    with pytest.raises(RuntimeError) as error:
        inferer(batch, broken)
    cause = mendable(error.value)
    assert cause is not None and "case_7.nii.gz is NaN or infinite" in str(cause)


@pytest.mark.parametrize(
    "options", [{"patch_size": [64, 64]}, {"patch_size": [0, 4, 4]}, {"patch_size": PATCH, "overlap": 1}]
)
def test_tiles_that_are_none_are_refused(options: dict) -> None:
    with pytest.raises(PyrasegError, match=r"patch_size|overlap"):
        TileInferer(**options)
