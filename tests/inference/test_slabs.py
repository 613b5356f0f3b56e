# SPDX-License-Identifier: Apache-2.0
"""Labels made slab by slab are those that MONAI's own transforms make of the whole volume."""

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.inferers import SimpleInferer, SliceInferer
from monai.transforms import Activationsd, AsDiscreted, Compose, CopyItemsd, Invertd, Spacingd
from torch import nn
from torch.profiler import ProfilerActivity, profile

from bundle.pyraseg.core import mendable
from bundle.pyraseg.inference import FlipInferer, FrugalInferer, SlabInferer
from bundle.pyraseg.transforms import (
    InvertArgmaxd,
    OrientSlicesd,
    RequireFinited,
    ResampleSlicesd,
    ResizePhotographd,
    StackContextSlicesd,
    TidyLabelsd,
)
from tests.helpers.commands import ROOT

CLASSES = 7
TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0], [0.48, 0.64, 0.6]])
DIRECTIONS = {
    "as a radiologist sees it": np.diag([-1.0, -1, 1]),
    "every axis reversed": np.diag([1.0, 1, -1]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0, 0, 1.0], [1, 0, 0], [0, -1, 0]]),
    "oblique": TURN,
}
SOFTMAX = Activationsd("pred", softmax=True)


class Counting(nn.Module):
    """A convolution that knows how many slices it was given at once."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(channels, CLASSES, 5, padding=2)
        self.batches: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        return self.layer(images)


def volume(directions: np.ndarray, depth: int) -> MetaTensor:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions @ np.diag([0.8, 1.1, 3]), (3, 4, 5)
    values = torch.rand(1, 41, 37, depth, generator=torch.Generator().manual_seed(depth))
    return MetaTensor(values, affine=torch.as_tensor(affine))


def by_monai(item: dict, preprocessing: Compose, logits: torch.Tensor) -> MetaTensor:
    steps = Compose(
        [
            SOFTMAX,
            Invertd("pred", preprocessing, "image", nearest_interp=False),
            AsDiscreted("pred", argmax=True, dtype=torch.uint8),
        ]
    )
    return steps({"image": item["image"], "pred": logits})["pred"]


@pytest.mark.parametrize("slab", [1, 200_000, 1 << 27], ids=["a slice", "some slices", "all slices"])
@pytest.mark.parametrize("depth", [1, 2, 17])
@pytest.mark.parametrize("directions", DIRECTIONS.values(), ids=DIRECTIONS)
@torch.no_grad()
def test_slabs_give_the_labels_of_the_whole(
    directions: np.ndarray, depth: int, slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundle.pyraseg.inference.inferers.SLAB", slab)
    chain = Compose(
        [OrientSlicesd("image"), ResampleSlicesd("image", spacing=1.7), StackContextSlicesd("image", context_slices=1)]
    )
    image = volume(directions, depth)
    item = chain({"image": image})
    batch, network = list_data_collate([item])["image"], Counting(3)
    slices = SliceInferer(roi_size=[-1, -1], spatial_dim=2, sw_batch_size=4)
    expected = by_monai(item, chain, slices(batch, network)[0])
    postprocessing = Compose([SOFTMAX, InvertArgmaxd("pred", transform=chain, orig_keys="image")])
    inferer = SlabInferer(FrugalInferer(FlipInferer(slices, flips=[])), postprocessing=postprocessing, classes=CLASSES)
    network.batches.clear()
    (found,) = decollate_batch(inferer(batch, network))
    assert inferer.rest.transforms == ()
    assert found.dtype == torch.uint8 and len(found.unique()) > 2
    assert torch.equal(found.as_tensor(), expected.as_tensor())
    torch.testing.assert_close(found.affine, image.affine)
    assert found.meta.keys() == expected.meta.keys()
    if slab == 1:
        assert network.batches == [1] * depth
    else:
        assert network.batches[:-1] == [4] * (len(network.batches) - 1)  # whole batches, as without slabs


@torch.no_grad()
def test_classes_that_are_nowhere_near_the_background_are_left_out() -> None:
    """Of them nothing is brought onto the large grid, and the labels are those of all classes."""
    chain = Compose([OrientSlicesd("image"), ResampleSlicesd("image", spacing=3.1)])
    item = chain({"image": volume(DIRECTIONS["oblique"], 9)})
    torch.manual_seed(0)
    logits = torch.randn(CLASSES, *item["image"].shape[1:])
    logits[0] += 1
    logits[2] -= 9  # nowhere
    logits[4, ..., 3:] -= 9  # in some slices
    logits[0, ..., 6:] += 20  # slices of background alone
    logits[5, 4, 5, 7] += 40  # and a pixel in one of them
    expected = by_monai(item, chain, logits)
    invert = InvertArgmaxd("pred", transform=chain, orig_keys="image")
    probabilities = SOFTMAX({"pred": logits})["pred"]
    found = invert({"image": item["image"], "pred": probabilities})["pred"]
    assert torch.equal(found.as_tensor(), expected.as_tensor()) and len(found.unique()) > 4
    for slices in (slice(0, 3), slice(3, 6), slice(6, 7), slice(7, 9)):
        few = {"image": item["image"][..., slices], "pred": probabilities[..., slices]}
        (there,) = (invert.slice_order(item["image"])[2][None] == torch.arange(9)[slices, None]).any(0).nonzero().mT
        assert torch.equal(invert(few)["pred"].as_tensor(), expected.as_tensor()[..., there])
    calls = []
    invert.inverted = lambda values, image: calls.append(len(values)) or InvertArgmaxd.inverted(invert, values, image)
    invert({"image": item["image"][..., 6:7], "pred": probabilities[..., 6:7]})
    assert calls == []
    invert({"image": item["image"][..., 3:6], "pred": probabilities[..., 3:6]})
    assert sum(calls) == CLASSES - 2


@torch.no_grad()
def test_values_that_are_not_finite_are_refused_by_the_name_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundle.pyraseg.inference.inferers.SLAB", 1)
    chain = Compose([OrientSlicesd("image")])
    image = volume(np.eye(3), 6)
    image.meta["filename_or_obj"] = "there/a.nii.gz"
    image[..., 4] = torch.nan
    batch = list_data_collate([chain({"image": image})])["image"]
    steps = [RequireFinited("pred"), SOFTMAX, InvertArgmaxd("pred", transform=chain, orig_keys="image")]
    inferer = SliceInferer(roi_size=[-1, -1], spatial_dim=2, sw_batch_size=4)
    with pytest.raises(RuntimeError) as caught:
        SlabInferer(inferer, postprocessing=Compose(steps), classes=CLASSES)(batch, Counting(1))
    assert "there/a.nii.gz is NaN or infinite" in str(mendable(caught.value))


@torch.no_grad()
def test_what_mixes_slices_is_done_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundle.pyraseg.inference.inferers.SLAB", 1)
    chain = Compose([Spacingd("image", pixdim=(1.5, 1.5, 1.5))])
    item = chain({"image": volume(np.eye(3), 6)})
    batch, network = list_data_collate([item])["image"], Counting(1)
    slices = SliceInferer(roi_size=[-1, -1], spatial_dim=2, sw_batch_size=4)
    postprocessing = Compose([SOFTMAX, InvertArgmaxd("pred", transform=chain, orig_keys="image")])
    (found,) = decollate_batch(SlabInferer(slices, postprocessing=postprocessing, classes=CLASSES)(batch, network))
    assert torch.equal(found.as_tensor(), by_monai(item, chain, slices(batch, network)[0]).as_tensor())


@torch.no_grad()
def test_slabs_take_little_more_memory_than_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundle.pyraseg.inference.inferers.SLAB", 1)
    chain = Compose([OrientSlicesd("image")])
    batch = list_data_collate([chain({"image": volume(np.diag([1.0, 1, 1]), 24)})])["image"]
    postprocessing = Compose([InvertArgmaxd("pred", transform=chain, orig_keys="image")])
    inferer = SlabInferer(SimpleInferer(), postprocessing=postprocessing, classes=2)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        inferer(batch, lambda images: torch.cat([images, -images], dim=1))
    assert profiler.profiler is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    used = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    assert batch.numel() < used.max() < 4 * batch.numel()  # a byte a voxel, and a slab


@torch.no_grad()
def test_a_photograph_is_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Compose([ResizePhotographd("image", size=(64, 96))])
    item = chain({"image": MetaTensor(torch.randint(0, 256, (3, 300, 211), dtype=torch.uint8))})
    batch, network = list_data_collate([item])["image"], Counting(3)
    postprocessing = Compose([SOFTMAX, InvertArgmaxd("pred", transform=chain, orig_keys="image")])
    inferer = SlabInferer(SimpleInferer(), postprocessing=postprocessing, classes=CLASSES)
    monkeypatch.setattr("bundle.pyraseg.transforms.resampling.BAND", 5000)
    (found,) = decollate_batch(inferer(batch, network))
    expected = by_monai(item, chain, network(batch)[0])
    assert torch.equal(found.as_tensor(), expected.as_tensor())
    torch.testing.assert_close(found.affine, expected.affine)


def test_probabilities_that_are_wanted_stay_whole() -> None:
    chain = Compose([OrientSlicesd("image")])
    argmax = InvertArgmaxd("pred", transform=chain, orig_keys="image")
    tidy = TidyLabelsd("pred", class_names=["background", "a"], min_size=4)
    kept = Compose([SOFTMAX, CopyItemsd("pred", names="probabilities"), argmax, tidy])
    inferer = SlabInferer(SimpleInferer(), postprocessing=kept, classes=CLASSES)
    assert not inferer.by_slab and inferer.rest is kept
    assert (
        SlabInferer(SimpleInferer(), postprocessing=Compose([SOFTMAX, argmax]), classes=2, whole=True).by_slab is False
    )
    assert SlabInferer(SimpleInferer(), postprocessing=Compose([SOFTMAX, argmax, tidy]), classes=2).rest.transforms == (
        tidy,
    )


@pytest.mark.parametrize(
    ("option", "by_slab"),
    [
        ({}, True),
        ({"min_size": 5}, True),
        ({"save_probabilities": True}, False),
        ({"seg_type": "FRACTIONAL"}, True),  # no SEG is asked for
        ({"seg_type": "FRACTIONAL", "outputs": ["seg"]}, False),
        ({"uncertainty_rotations": [10]}, False),
    ],
)
def test_the_config_goes_slab_by_slab_unless_more_than_labels_is_asked_for(option: dict, by_slab: bool) -> None:
    parser = ConfigParser()
    parser.read_config(ROOT / "configs" / "inference.json")
    parser.update(option)
    assert parser.get_parsed_content("slab_inferer").by_slab is by_slab


def test_a_training_validates_slab_by_slab_and_an_evaluation_keeps_probabilities() -> None:
    for others, by_slab in ([], True), (["evaluate.json"], False):
        parser = ConfigParser()
        parser.read_config([str(ROOT / "configs" / name) for name in ("train.json", *others)])
        parser["pretrained"] = False
        assert parser.get_parsed_content("validate#slab_inferer").by_slab is by_slab
