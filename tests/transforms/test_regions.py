# SPDX-License-Identifier: Apache-2.0
"""Labels of regions as MONAI's own transforms make them, one channel a region."""

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import AsDiscreted, Compose, FillHoles, Invertd, KeepLargestConnectedComponent
from scipy import ndimage

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.transforms import (
    InvertRegionsd,
    LabelToRegionsd,
    ResizePhotographd,
    ThresholdRegionsd,
    TidyLabelsd,
)
from tests.helpers.commands import ROOT
from tests.helpers.dicom_files import CORONAL, write_series

NAMES = ["background", "liver", "lesion", "spleen"]
REGIONS = {"organ": ["liver", "lesion"], "lesion": ["lesion"], "all": ["liver", "lesion", "spleen"]}


def values_of_channels(channels: torch.Tensor) -> torch.Tensor:
    return sum((2**place * (channel > 0).long() for place, channel in enumerate(channels)), torch.tensor(0))[None]


@pytest.mark.parametrize("spacing", [0.8, 2.5])
def test_the_same_as_invertd_and_a_threshold(tmp_path, spacing):
    write_series(tmp_path, np.zeros((4, 40, 33), np.int16), orientation=CORONAL, spacing=(1.2, 0.9), slice_step=3.0)
    parser = ConfigParser()
    parser.read_config(ROOT / "configs" / "inference.json")
    parser["spacing"] = spacing
    preprocessing = parser.get_parsed_content("preprocessing")
    data = preprocessing({"image": str(tmp_path)})
    torch.manual_seed(0)
    data["pred"] = MetaTensor(torch.rand(3, *data["image"].shape[1:]))
    invert = Invertd("pred", preprocessing, "image", nearest_interp=False)
    theirs = Compose([invert, AsDiscreted("pred", threshold=0.5)])(dict(data))["pred"]
    ours = InvertRegionsd("pred", transform=preprocessing, orig_keys="image", regions=REGIONS)(dict(data))["pred"]
    assert ours.dtype == torch.uint8 and ours.shape == (1, 33, 40, 4)
    assert torch.equal(ours.as_tensor(), values_of_channels(theirs.as_tensor())) and len(ours.unique()) == 8
    torch.testing.assert_close(ours.affine, theirs.affine)
    again = ThresholdRegionsd("pred")(invert(dict(data)))["pred"]
    assert torch.equal(again.as_tensor(), ours.as_tensor())
    torch.testing.assert_close(again.affine, theirs.affine)


def test_a_photograph_is_done_in_bands(monkeypatch):
    monkeypatch.setattr("bundle.pyraseg.transforms.resampling.BAND", 4000)
    chain = Compose([ResizePhotographd("image", size=[40, 32], mode="bilinear")])
    item = chain({"image": MetaTensor(torch.rand(3, 150, 90))})
    item["pred"] = MetaTensor(torch.rand(3, 40, 32))
    invert = Invertd("pred", chain, "image", nearest_interp=False)
    theirs = Compose([invert, AsDiscreted("pred", threshold=0.5)])(dict(item))["pred"]
    ours = InvertRegionsd("pred", transform=chain, orig_keys="image", regions=REGIONS)(dict(item))["pred"]
    assert torch.equal(ours.as_tensor(), values_of_channels(theirs.as_tensor()))
    torch.testing.assert_close(ours.affine, theirs.affine)


def test_other_channels_than_regions_are_refused():
    chain = Compose([ResizePhotographd("image", size=[8, 8], mode="bilinear")])
    item = chain({"image": MetaTensor(torch.rand(3, 9, 9))}) | {"pred": MetaTensor(torch.rand(4, 8, 8))}
    with pytest.raises(PyrasegError, match="gives 4 channels, and `regions` names 3: organ, lesion, all"):
        InvertRegionsd("pred", transform=chain, orig_keys="image", regions=REGIONS)(item)


def blobs(seed: int) -> torch.Tensor:
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.standard_normal((3, 30, 28, 9)), (0, 2, 2, 1))
    return torch.from_numpy((noise > 0.03).astype(np.uint8))


def test_regions_are_tidied_up_as_masks_are():
    channels = blobs(0)
    affine = torch.diag(torch.tensor([0.5, 1.0, 4.0, 1.0]))  # 2 cubic mm
    tidy = TidyLabelsd(
        "pred", class_names=NAMES, regions=REGIONS, keep_largest=["lesion"], fill_holes=["organ"], min_size=20
    )
    found = tidy({"pred": MetaTensor(values_of_channels(channels).to(torch.uint8), affine=affine)})["pred"]
    expected = channels.clone()
    expected[1:2] = KeepLargestConnectedComponent(connectivity=1)(channels[1:2])
    expected[0:1] = FillHoles()(channels[0:1])
    for mask in expected:
        parts, count = ndimage.label(mask.numpy())
        assert count
        small = np.flatnonzero(np.bincount(parts.ravel()) * 2 < 20)
        mask[torch.from_numpy(np.isin(parts, small))] = 0
    assert torch.equal(found.as_tensor(), values_of_channels(expected))
    assert not torch.equal(expected, channels) and torch.equal(found.affine, affine)
    with pytest.raises(PyrasegError, match="nothing called 'spleen'"):
        TidyLabelsd("pred", class_names=NAMES, regions=REGIONS, keep_largest=["spleen"])


def test_truth_becomes_regions():
    names = ["background", "liver", "lesion", "spleen"]
    label = MetaTensor(torch.tensor([[[0, 1, 2, 3, 255]]], dtype=torch.uint8), affine=2 * torch.eye(4))
    found = LabelToRegionsd("truth", class_names=names, regions=REGIONS)({"truth": label})["truth"]
    assert found.flatten().tolist() == [0, 5, 7, 4, 255] and torch.equal(found.affine, label.affine)
