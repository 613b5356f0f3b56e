# SPDX-License-Identifier: Apache-2.0
"""Probabilities become labels as MONAI's own two transforms make them; regions are counted by hand."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import AsDiscreted, Compose, FillHoles, Invertd, KeepLargestConnectedComponent
from scipy import ndimage

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms.postprocessing import InvertArgmaxd, RequireFinited, TidyLabelsd
from tests.helpers.dicom_files import CORONAL, write_series

CONFIG = Path(__file__).parents[2] / "configs" / "inference.json"
NAMES = ["background", "a", "b"]


@pytest.mark.parametrize("spacing", [0.8, 2.5])
def test_the_same_as_invertd_and_asdiscreted(tmp_path, spacing):
    write_series(tmp_path, np.zeros((4, 40, 33), np.int16), orientation=CORONAL, spacing=(1.2, 0.9), slice_step=3.0)
    parser = ConfigParser()
    parser.read_config(CONFIG)
    parser["spacing"] = spacing
    preprocessing = parser.get_parsed_content("preprocessing")
    data = preprocessing({"image": str(tmp_path)})
    torch.manual_seed(0)
    data["pred"] = MetaTensor(torch.rand(5, *data["image"].shape[1:]).softmax(0))
    theirs = Compose(
        [
            Invertd("pred", preprocessing, "image", nearest_interp=False),
            AsDiscreted("pred", argmax=True, dtype=torch.uint8),
        ]
    )(dict(data))["pred"]
    ours = InvertArgmaxd("pred", transform=preprocessing, orig_keys="image")(dict(data))["pred"]
    assert ours.dtype == torch.uint8 and ours.shape == (1, 33, 40, 4)
    assert torch.equal(ours.as_tensor(), theirs.as_tensor()) and len(ours.unique()) == 5
    torch.testing.assert_close(ours.affine, theirs.affine)
    torch.testing.assert_close(ours.affine, data["original"].affine)


def test_small_regions_of_each_class_become_background():
    labels = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    labels[0, :3, :2, 1] = 1  # 6 voxels
    labels[0, 3, 2, 1] = 1  # touches by an edge: a region of its own
    labels[0, 3, :2, 1] = 2  # 2 voxels beside class 1
    labels[0, 6:, 6:, :] = 2  # 12 voxels
    affine = torch.diag(torch.tensor([2.0, 1.0, 0.5, 1.0]))
    sheared = affine.clone()
    sheared[0, 2] = 0.3  # a tilted gantry does not change a volume
    expected = labels.clone()
    expected[0, 3, 2, 1] = expected[0, 3, :2, 1] = 0
    for matrix in (affine, sheared):
        data = {"pred": MetaTensor(labels.clone(), affine=matrix)}
        for least, kept in ((1.0, labels), (2.5, expected), (6.0, expected)):
            result = TidyLabelsd("pred", class_names=NAMES, min_size=least)(data)["pred"]
            if least == 1.0:
                assert torch.equal(result.as_tensor(), labels)
            else:
                assert torch.equal(result.as_tensor(), kept)
    data = {"pred": MetaTensor(labels[..., 1].clone(), affine=affine)}
    photograph = TidyLabelsd("pred", class_names=NAMES, min_size=3)(data)["pred"]  # pixels
    assert torch.equal(photograph.as_tensor(), expected[..., 1])


@pytest.mark.parametrize(
    ("shape", "sizes", "least"),
    [
        ((10, 10, 10), (0.1, 1.0, 1.0), 100),  # a sum of 1000 times 0.1 is less than 100
        ((10, 1, 1), np.float32([0.7, 1, 1]), 7),  # which 0.69999999 is in a header of float32
        ((2, 3, 4), (0.3, 0.6, 1.1), 24 * 0.198),
    ],
)
def test_a_region_of_just_the_least_size_stays(shape, sizes, least):
    labels = torch.zeros(1, 12, 12, 12, dtype=torch.uint8)
    labels[(0, *(slice(size) for size in shape))] = 1
    smaller = labels.clone()
    smaller[0, 0, 0, 0] = 0
    affine = torch.diag(torch.tensor([*map(float, sizes), 1.0], dtype=torch.float64))
    for values, kept in ((labels, labels), (smaller, torch.zeros_like(labels))):
        data = {"pred": MetaTensor(values.clone(), affine=affine)}
        result = TidyLabelsd("pred", class_names=NAMES, min_size=least)(data)["pred"]
        assert torch.equal(result.as_tensor(), kept)


def test_small_regions_are_removed_in_little_memory():
    random = np.random.default_rng(0)
    labels = MetaTensor(torch.from_numpy(random.integers(0, 3, (1, 80, 80, 40)).astype(np.uint8)), affine=torch.eye(4))
    tracemalloc.start()
    result = TidyLabelsd("pred", class_names=NAMES, min_size=30)({"pred": labels})["pred"]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 12 * labels.numel()
    found = ndimage.label(result[0].numpy() == 1)[0]
    assert len(found.nonzero()[0]) and np.unique(found, return_counts=True)[1].min() >= 30


def test_what_is_tidied_up_is_told_by_name():
    tidy = TidyLabelsd("pred", class_names=NAMES, keep_largest=["b", "a"])
    assert tidy.tidying.keep_largest == (2, 1)
    with pytest.raises(PyrasegError, match=r"nothing called 'spleem' .* finds liver, spleen. The nearest name is 'spl"):
        TidyLabelsd("pred", class_names=["background", "liver", "spleen"], fill_holes=["spleem"])
    with pytest.raises(PyrasegError, match="nothing called 'background'"):
        TidyLabelsd("pred", class_names=NAMES, keep_largest=["background"])


@pytest.mark.parametrize("shape", [(30, 28, 9), (60, 50)])
def test_classes_are_tidied_up_as_monai_does(shape):
    random = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(random.standard_normal((3, *shape)), (0, 2, 2, 1)[: 1 + len(shape)])
    classes = np.where(random.random(shape) < 0.05, 0, noise.argmax(0)).astype(np.uint8)
    labels = MetaTensor(torch.from_numpy(classes)[None], affine=torch.eye(4))
    kept = KeepLargestConnectedComponent(applied_labels=[1, 2], connectivity=1)(labels.clone())
    expected = FillHoles(applied_labels=[2])(kept.clone())
    assert not torch.equal(kept, labels) and not torch.equal(expected, kept)
    tidy = TidyLabelsd("pred", class_names=NAMES, keep_largest=["a", "b"], fill_holes=["b"])
    assert torch.equal(tidy({"pred": labels})["pred"].as_tensor(), expected.as_tensor())


def test_holes_of_one_slice_are_filled_in_its_plane():
    labels = torch.ones(1, 5, 5, 1, dtype=torch.uint8)
    labels[0, 2, 2] = labels[0, 0, 0] = 0  # a corner is open
    found = TidyLabelsd("pred", class_names=NAMES, fill_holes=["a"])({"pred": MetaTensor(labels, affine=torch.eye(4))})
    assert found["pred"].sum() == 24 and found["pred"][0, 2, 2, 0] == 1


def test_the_knobs_of_the_config_tidy_up():
    parser = ConfigParser()
    parser.read_config(CONFIG)
    parser.update({"keep_largest": ["liver"], "fill_holes": ["spleen"], "min_size": 4})
    *_, tidy = parser.get_parsed_content("postprocessing").transforms
    labels = torch.zeros(1, 9, 9, 5, dtype=torch.uint8)
    labels[0, :2, :2, 0] = 1  # 4 mm3
    labels[0, 6:, :2] = 1  # 30 mm3
    labels[0, 3:6, 3:6, 1:4] = 3
    labels[0, 4, 4, 2] = 0  # a hole in the spleen
    labels[0, 8, 8, 0] = 4  # 1 mm3
    expected = labels.clone()
    expected[0, :2, :2, 0], expected[0, 4, 4, 2], expected[0, 8, 8, 0] = 0, 3, 0
    data = {"pred": MetaTensor(labels, affine=torch.eye(4))}
    assert torch.equal(tidy(data)["pred"].as_tensor(), expected)
    parser = ConfigParser()
    parser.read_config(CONFIG)
    assert len(parser.get_parsed_content("postprocessing").transforms) == 3  # none of them unless asked for


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_output_that_is_not_finite_makes_no_mask(value):
    logits = torch.zeros(3, 4, 5, 6)
    image = MetaTensor(torch.zeros(1, 4, 5, 6), meta={"filename_or_obj": "scan.nii"})
    step = RequireFinited("pred")
    assert step({"pred": logits, "image": image})["pred"] is logits
    logits[2, 1, 1, 1] = value
    with pytest.raises(PyrasegError, match=r"output for scan\.nii is NaN or infinite, and makes no mask\."):
        step({"pred": logits, "image": image})


def test_every_program_refuses_such_an_output_before_anything_else():
    place = "validate#postprocessing#transforms"
    programs = {("inference",): place.removeprefix("validate#"), ("train",): place}
    programs |= {("train", name): place for name in ("evaluate", "calibrate")}
    for names, where in programs.items():
        files = [str(CONFIG.with_name(f"{name}.json")) for name in names]
        (first, *_) = ConfigParser(ConfigParser.load_config_files(files))[where]
        assert first == {"_target_": "bundle.pyraseg.transforms.RequireFinited", "keys": "pred"}, names
