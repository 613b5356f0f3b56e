# SPDX-License-Identifier: Apache-2.0
"""A slice is augmented the same by the process that loads it and, in a batch, by the device that trains."""

import pytest
import torch
from monai.transforms import Compose, EnsureTyped, RandFlipd, RandRotate90d, ResizeWithPadOrCropd
from torch.utils.data import DataLoader

from bundle.pyraseg.data.slices import Draw, SliceDataset
from bundle.pyraseg.networks.encoders import expected_normalization
from bundle.pyraseg.training.iterations import AugmentBatch
from bundle.pyraseg.transforms import RandBlurd, RandBrightnessContrastd, RandColorJitterd, RandNoised
from bundle.pyraseg.transforms.deformation import RandDeformd
from bundle.pyraseg.transforms.strength import split_at_random

BOTH = ["image", "label"]
DRAWS = [Draw(case=0, slice=0, seed=seed, strength=strength) for seed, strength in ((1, 1.0), (2, 0.5), (3, 0.0))]


def chain() -> Compose:
    return Compose(
        [
            ResizeWithPadOrCropd(BOTH, spatial_size=[24, 24], mode="edge"),
            RandFlipd(BOTH, prob=0.5, spatial_axis=0),
            RandRotate90d(BOTH, prob=0.75),
            RandDeformd(BOTH, prob=0.9, elastic_magnitude=3, mode=["bilinear", "nearest"]),
            RandColorJitterd("image", normalization=expected_normalization("tf_efficientnet_lite0")),
            RandBrightnessContrastd("image", prob=0.8, value_range=(-1, 1)),
            RandNoised("image", prob=0.8),
            RandBlurd("image", prob=0.8),
            EnsureTyped(BOTH, track_meta=False),
        ]
    )


def prepared(case: dict) -> dict:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, 20, 30, 1, generator=generator)
    return {"image": image, "label": (image[:1] > 0).to(torch.uint8)}


@pytest.fixture
def datasets(tmp_path) -> dict[bool, SliceDataset]:
    for name in BOTH:
        (tmp_path / name).write_text(name)
    case = {name: str(tmp_path / name) for name in BOTH}
    return {
        on_device: SliceDataset(
            [case], prepared, augmentation=chain(), augment_on_device=on_device, cache_dir=tmp_path / "cache"
        )
        for on_device in (False, True)
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_is_what_the_loading_processes_would_have_made(datasets, workers):
    whole, left = (
        next(iter(DataLoader(datasets[on_device], sampler=DRAWS, batch_size=3, num_workers=workers)))
        for on_device in (False, True)
    )
    prepare = AugmentBatch(chain())
    expected, augmented = (prepare(batch, torch.device("cpu")) for batch in (whole, left))
    for name, of_workers, of_device in zip(BOTH, expected, augmented, strict=True):
        assert torch.equal(of_workers, of_device), name
        assert of_device.dtype == of_workers.dtype
    assert not torch.equal(left["image"], augmented[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_deforms_as_a_cpu_does(datasets):
    batch = next(iter(DataLoader(datasets[True], sampler=DRAWS, batch_size=3)))
    without_noise = Compose([each for each in chain().transforms if not isinstance(each, RandNoised)])
    on_cpu, on_gpu = (AugmentBatch(without_noise)(batch, torch.device(name)) for name in ("cpu", "cuda"))
    assert on_gpu[0].is_cuda
    torch.testing.assert_close(on_gpu[0].cpu(), on_cpu[0], atol=1e-4, rtol=1e-4)
    assert (on_gpu[1].cpu() == on_cpu[1]).float().mean() > 0.999


def test_a_chain_is_parted_at_its_first_random_transform():
    whole = chain()
    before, after = split_at_random(whole)
    assert before.transforms == whole.transforms[:1]
    assert after.transforms == whole.transforms[1:]
    before, after = split_at_random(Compose([Compose(whole.transforms[:2]), *whole.transforms[2:]]))
    assert before.transforms == whole.transforms[:1]
    assert [len(part.transforms) for part in split_at_random(Compose(whole.transforms[:1]))] == [1, 0]
