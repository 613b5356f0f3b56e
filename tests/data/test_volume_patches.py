# SPDX-License-Identifier: Apache-2.0
"""Patches of volumes: where they lie, what they hold, and that a draw decides them."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import CenterSpatialCropd, Compose, LoadImaged, RandFlipd

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.data import Draw, PatchDataset
from bundle.pyraseg.training import StagedSampler

READ = Compose([LoadImaged(["image", "label"], ensure_channel_first=True)])
SIZE = (30, 24, 20)


def write_case(folder, name, size=SIZE, boxes=()):
    """Write a volume whose voxels are their own numbers, and a label with boxes of classes."""
    image = np.arange(np.prod(size), dtype=np.float32).reshape(size)
    label = np.zeros(size, np.uint8)
    for value, box in boxes:
        label[box] = value
    case = {"patient": name}
    for key, array in (("image", image), ("label", label)):
        case[key] = str(folder / f"{name}_{key}.nii.gz")
        nib.Nifti1Image(array, np.eye(4)).to_filename(case[key])
    return case, image, label


def dataset_of(cases, folder, augmentation=(), **options):
    options = {"patch_size": [8, 10, 6], "cache_dir": folder / "cache", **options}
    return PatchDataset(cases, READ, augmentation=Compose(augmentation), **options)


def places(patch, size=SIZE):
    """Return which voxels of the volume a patch holds, along each axis."""
    return [np.unique(axis) for axis in np.unravel_index(patch[0].numpy().astype(int), size)]


def test_a_patch_is_cut_from_the_volume_about_a_voxel_of_a_class(tmp_path):
    box = np.s_[10:12, 5:7, 8:9]
    case, image, label = write_case(tmp_path, "a", boxes=[(1, box)])
    dataset = dataset_of([case], tmp_path)
    for seed in range(20):
        sample = dataset[Draw(case=0, slice=8, seed=seed, strength=1.0)]
        columns, rows, slices = places(sample["image"])
        assert (len(columns), len(rows), len(slices)) == (8, 10, 6)
        held = np.ix_(columns, rows, slices)
        assert (sample["image"][0].numpy() == image[held]).all()
        assert (sample["label"][0].numpy() == label[held]).all()
        middle = [axis[0] + len(axis) // 2 for axis in (columns, rows, slices)]
        assert middle[0] in (10, 11) and middle[1] in (5, 6) and middle[2] == 8
        assert sample["case"] == case["image"]


def test_a_patch_lies_inside_the_volume(tmp_path):
    case, *_ = write_case(tmp_path, "a", boxes=[(1, np.s_[0:1, 23:24, 0:20])])
    dataset = dataset_of([case], tmp_path)
    columns, rows, slices = places(dataset[Draw(0, 19, 3, 1.0)]["image"])
    assert (columns[0], rows[-1], slices[-1]) == (0, 23, 19)
    assert (len(columns), len(rows), len(slices)) == (8, 10, 6)


def test_a_volume_smaller_than_a_patch_lies_in_its_middle_with_its_border_repeated(tmp_path):
    size = (4, 24, 3)
    case, image, label = write_case(tmp_path, "a", size, boxes=[(2, np.s_[3:4, 4:20, 0:3])])
    sample = dataset_of([case], tmp_path)[Draw(0, 1, 0, 1.0)]
    assert sample["image"].shape == (1, 8, 10, 6)
    (_, rows, _) = places(sample["image"], size)
    padding = [(2, 2), (0, 0), (2, 1)]
    assert (sample["image"][0].numpy() == np.pad(image[:, rows], padding, mode="edge")).all()
    assert (sample["label"][0].numpy() == np.pad(label[:, rows], padding, mode="edge")).all()


def test_the_region_around_a_patch_is_larger_and_has_it_in_its_middle(tmp_path):
    case, *_ = write_case(tmp_path, "a", boxes=[(1, np.s_[2:28, 2:22, 2:18])])
    draw = Draw(0, 9, 5, 1.0)
    patch = dataset_of([case], tmp_path)[draw]["image"]
    wide = dataset_of([case], tmp_path, margin=0.5)[draw]["image"]
    assert wide.shape == (1, 12, 15, 9)
    crop = CenterSpatialCropd("image", roi_size=[8, 10, 6])
    cropped = dataset_of([case], tmp_path, [crop], margin=0.5)[draw]["image"]
    assert torch.equal(cropped, patch)


def test_classes_of_a_slice_are_drawn_alike_whatever_their_size(tmp_path):
    case, *_ = write_case(tmp_path, "a", boxes=[(1, np.s_[0:20, 0:24, 5:6]), (2, np.s_[25:26, 11:12, 5:6])])
    dataset = dataset_of([case], tmp_path, patch_size=[1, 1, 1])
    drawn = [int(dataset[Draw(0, 5, seed, 1.0)]["label"]) for seed in range(400)]
    assert set(drawn) == {1, 2}
    assert 160 < drawn.count(2) < 240  # five standard deviations around a half: 50


def test_where_a_slice_shows_no_class_all_of_it_is_drawn(tmp_path):
    case, *_ = write_case(tmp_path, "a", boxes=[(1, np.s_[0:2, 0:2, 0:2])])
    dataset = dataset_of([case], tmp_path, patch_size=[1, 1, 1])
    found = {int(dataset[Draw(0, 15, seed, 1.0)]["image"]) for seed in range(300)}
    columns, rows, slices = np.unravel_index(sorted(found), SIZE)
    assert set(slices) == {15}
    assert (columns.min() < 5 and columns.max() > 24) and (rows.min() < 4 and rows.max() > 19)


def test_a_draw_decides_its_patch_in_every_process(tmp_path):
    cases = [write_case(tmp_path, name, boxes=[(1, np.s_[5:20, 5:20, 3:15])])[0] for name in "ab"]
    dataset = dataset_of(cases, tmp_path, [RandFlipd(["image", "label"], prob=0.5, spatial_axis=0)])
    sampler = StagedSampler(dataset, samples_per_epoch=8)
    first = [dataset[draw]["image"] for draw in sampler]
    loader = torch.utils.data.DataLoader(dataset, sampler=sampler, batch_size=2, num_workers=2)
    others = torch.cat([batch["image"] for batch in loader])
    assert torch.equal(torch.stack(first), others)
    assert len({float(patch.sum()) for patch in first}) > 4


def test_what_two_processes_draw_is_what_one_would(tmp_path):
    case, *_ = write_case(tmp_path, "a", boxes=[(1, np.s_[5:20, 5:20, 3:15])])
    dataset = dataset_of([case], tmp_path)
    alone = list(StagedSampler(dataset, samples_per_epoch=8))
    shared = [list(StagedSampler(dataset, samples_per_epoch=8, rank=rank, processes=2)) for rank in (0, 1)]
    assert [draw for pair in zip(*shared, strict=True) for draw in pair] == alone


@pytest.mark.parametrize(("size", "margin"), [([8, 8], 0), ([8, 8, 0], 0), ([8, 8, 8], -1)])
def test_sizes_that_are_none_are_refused(tmp_path, size, margin):
    with pytest.raises(PyrasegError, match="patch_size"):
        dataset_of([], tmp_path, patch_size=size, margin=margin)
