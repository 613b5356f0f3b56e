# SPDX-License-Identifier: Apache-2.0
"""Slices of volumes from a cache on disk: what they hold, when they are made anew, and that every draw repeats."""

import os
import subprocess
import sys
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureTyped, LoadImaged
from PIL import Image
from torch.utils.data import DataLoader

from bundle.pyraseg.core.errors import DiskError, PyrasegError
from bundle.pyraseg.data.slice_cache import SliceCache, state_of_files
from bundle.pyraseg.data.slices import Draw, SliceDataset, check_cases
from bundle.pyraseg.transforms.deformation import RandDeformd
from bundle.pyraseg.transforms.intensity import RandNoised
from bundle.pyraseg.transforms.label import UNKNOWN, LoadLabeld
from bundle.pyraseg.transforms.slices import OrientSlicesd
from bundle.pyraseg.transforms.windowing import Windowd
from tests.helpers.dicom_files import write_series

SHAPE = (3, 20, 16)  # slices, rows, columns
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
READER = "bundle.pyraseg.transforms.MedicalImageReader"


def preprocessing(width: float = 400) -> Compose:
    return Compose(
        [
            LoadImaged("image", reader=READER, ensure_channel_first=True),
            LoadLabeld("label", class_names=["background", "liver", "lesion"]),
            Windowd("image", windows=[{"center": 40, "width": width}], output_range=(-1, 1)),
            OrientSlicesd(["image", "label"]),
        ]
    )


def augmentation() -> Compose:
    return Compose(
        [
            RandDeformd(["image", "label"], prob=1.0, rotation=15, elastic_magnitude=2, mode=["bilinear", "nearest"]),
            RandNoised("image", prob=1.0, std=0.1),
            EnsureTyped(["image", "label"], track_meta=False),
        ]
    )


def write_case(folder: Path, seed: int, shape: tuple[int, int, int] = SHAPE) -> dict[str, str]:
    """Write a CT series with a NIfTI label; the middle slice has no foreground."""
    random = np.random.default_rng(seed)
    write_series(folder / "ct", random.integers(-200, 300, shape, dtype=np.int16))
    label = random.integers(0, 3, shape, dtype=np.uint8)
    label[1] = 0
    nib.save(nib.Nifti1Image(label.transpose(2, 1, 0), LPS_TO_RAS), folder / "label.nii.gz")
    return {"image": str(folder / "ct"), "label": str(folder / "label.nii.gz"), "patient": folder.name}


@pytest.fixture
def cases(tmp_path: Path) -> list[dict[str, str]]:
    return [write_case(tmp_path / name, seed) for seed, name in enumerate(("anna", "bert"))]


@pytest.fixture
def dataset(cases, tmp_path) -> SliceDataset:
    return SliceDataset(cases, preprocessing(), augmentation=augmentation(), cache_dir=tmp_path / "cache")


def written(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# --- the cache ---


def test_entries_hold_what_the_transform_makes(dataset, cases):
    for case, entry in zip(cases, dataset.entries, strict=True):
        made = preprocessing()(dict(case))
        assert made["image"].shape == (1, 16, 20, 3)
        for k in range(3):
            image, label = SliceCache.read(entry, k)
            np.testing.assert_array_equal(image, made["image"].numpy()[..., k])
            np.testing.assert_array_equal(label, made["label"].numpy()[..., k])
            assert (image.dtype, label.dtype) == (np.float32, np.uint8)


def test_present_tells_the_classes_of_every_slice(dataset):
    assert len(dataset) == 6
    for present in dataset.present:
        np.testing.assert_array_equal(present, [[True] * 3, [True, False, False], [True] * 3])


def with_unknown_pixels(item: dict) -> dict:
    """Leave the first slice unlabeled and one pixel of the second."""
    made = preprocessing()(item)
    made["label"][..., 0] = UNKNOWN
    made["label"][0, 0, 0, 1] = UNKNOWN
    return made


def test_unknown_pixels_are_no_class_of_a_slice(cases, tmp_path):
    dataset = SliceDataset(cases, with_unknown_pixels, augmentation=augmentation(), cache_dir=tmp_path / "cache")
    for present in dataset.present:
        np.testing.assert_array_equal(present, [[False] * 3, [True, False, False], [True] * 3])
    check_cases(cases, with_unknown_pixels, part="validation")
    with pytest.raises(PyrasegError, match="No label"):
        check_cases(cases, lambda item: {"label": torch.full((1, 2, 2), UNKNOWN)}, part="validation")


def test_a_photograph_is_a_volume_of_one_slice(tmp_path):
    random = np.random.default_rng(0)
    photograph, mask = random.integers(0, 255, (5, 7, 3), np.uint8), random.integers(0, 2, (5, 7), np.uint8)
    Image.fromarray(photograph).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    case = {"image": str(tmp_path / "image.png"), "label": str(tmp_path / "mask.png")}
    load = Compose(
        [
            LoadImaged("image", reader=READER, ensure_channel_first=True),
            LoadLabeld("label", class_names=["skin", "lesion"]),
        ]
    )
    dataset = SliceDataset([case], load, augmentation=Compose([]), cache_dir=tmp_path / "cache")
    sample = dataset[Draw(case=0, slice=0, seed=0, strength=0.0)]
    np.testing.assert_array_equal(sample["image"].numpy(), photograph.transpose(2, 1, 0))
    np.testing.assert_array_equal(sample["label"].numpy(), mask.T[None])


def test_a_label_may_be_a_mask_for_each_class(tmp_path):
    gray, mask = np.zeros((5, 7), np.uint8), np.eye(5, 7, dtype=np.uint8)
    for name, values in (("image", gray), ("one", mask), ("other", np.roll(mask, 1))):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    paths = {name: str(tmp_path / f"{name}.png") for name in ("image", "one", "other")}
    load = Compose(
        [
            LoadImaged("image", reader=READER, ensure_channel_first=True),
            LoadLabeld("label", class_names=["skin", "lesion", "hair"]),
        ]
    )
    cases = [
        {"image": paths["image"], "label": label}
        for label in (
            {"lesion": paths["one"], "hair": paths["other"]},
            {"hair": paths["one"], "lesion": paths["other"]},
        )
    ]
    dataset = SliceDataset(cases, load, augmentation=Compose([]), cache_dir=tmp_path / "cache")
    assert len(set(dataset.entries)) == 2  # the same files, as other classes
    labels = [dataset[Draw(case=case, slice=0, seed=0, strength=0.0)]["label"].numpy()[0] for case in (0, 1)]
    np.testing.assert_array_equal(labels[0], (mask + 2 * np.roll(mask, 1)).T)
    np.testing.assert_array_equal(labels[1], (2 * mask + np.roll(mask, 1)).T)
    entry = dataset.entries[0]
    os.utime(paths["other"], ns=(1, 1))
    again = SliceDataset(cases[:1], load, augmentation=Compose([]), cache_dir=tmp_path / "cache")
    assert again.entries[0] != entry


def test_a_second_run_computes_nothing(dataset, cases, tmp_path):
    before = written(tmp_path / "cache")
    again = SliceDataset(cases, preprocessing(), augmentation=augmentation(), cache_dir=tmp_path / "cache")
    assert again.entries == dataset.entries
    assert written(tmp_path / "cache") == before and len(before) == 6


def test_other_preprocessing_makes_other_entries(dataset, cases, tmp_path):
    other = SliceDataset(cases, preprocessing(width=80), augmentation=augmentation(), cache_dir=tmp_path / "cache")
    assert not set(other.entries) & set(dataset.entries)
    assert not np.array_equal(SliceCache.read(other.entries[0], 0)[0], SliceCache.read(dataset.entries[0], 0)[0])


def test_voxels_beside_their_header_count(tmp_path):
    itk.imwrite(itk.image_from_array(np.zeros((2, 3, 4), np.uint8)), str(tmp_path / "label.mhd"))
    item = {"image": str(tmp_path / "label.mhd"), "label": str(tmp_path / "label.mhd")}
    before = state_of_files(item)
    os.utime(tmp_path / "label.raw", ns=(1, 1))
    assert state_of_files(item) != before


@pytest.mark.parametrize("name", ["ct/slice_001.dcm", "label.nii.gz"])
def test_a_touched_file_makes_a_new_entry(dataset, cases, tmp_path, name):
    os.utime(tmp_path / "bert" / name, ns=(1, 1))
    again = SliceDataset(cases, preprocessing(), augmentation=augmentation(), cache_dir=tmp_path / "cache")
    assert again.entries[0] == dataset.entries[0]
    assert again.entries[1] != dataset.entries[1]


@pytest.mark.slow
def test_entries_have_the_same_names_in_every_process(cases, tmp_path):
    program = """
import sys
from bundle.pyraseg.data.slice_cache import SliceCache
from tests.data.test_slices import preprocessing
print(SliceCache("cache", preprocessing()).entry({"image": sys.argv[1], "label": sys.argv[2]}))
"""
    command = [sys.executable, "-c", program, cases[0]["image"], cases[0]["label"]]
    other_hashes = {**os.environ, "PYTHONHASHSEED": "1"}  # this process has a random one, or 0
    done = subprocess.run(command, env=other_hashes, capture_output=True, text=True, check=True)
    assert done.stdout == f"{SliceCache('cache', preprocessing()).entry(cases[0])}\n"


def test_the_size_of_the_cache_is_told(cases, tmp_path, caplog):
    with caplog.at_level("INFO"):
        SliceDataset(cases, preprocessing(), augmentation=augmentation(), cache_dir=tmp_path / "cache")
    assert f"Slices of 2 cases are cached in {tmp_path / 'cache'} (0 MB)" in caplog.text


# --- draws ---


def test_a_draw_alone_decides_the_sample(dataset):
    draw = Draw(case=0, slice=2, seed=5, strength=1.0)
    first = dataset[draw]
    dataset[Draw(case=1, slice=0, seed=6, strength=0.2)]  # what came before does not matter
    again = dataset[draw]
    other = dataset[draw._replace(seed=6)]
    for key in ("image", "label"):
        assert torch.equal(first[key], again[key])
        assert not torch.equal(first[key], other[key])
    assert first["image"].shape == (1, 16, 20) and type(first["image"]) is torch.Tensor


def test_strength_zero_leaves_the_slice_as_it_is(dataset):
    sample = dataset[Draw(case=1, slice=2, seed=5, strength=0.0)]
    image, label = SliceCache.read(dataset.entries[1], 2)
    np.testing.assert_allclose(sample["image"].numpy(), image, atol=1e-5)
    np.testing.assert_array_equal(sample["label"].numpy(), label)


def test_persistent_workers_make_the_same_samples_in_every_epoch(dataset):
    draws = [Draw(case=n % 2, slice=n % 3, seed=n, strength=0.5 + n / 20) for n in range(8)]
    here = [dataset[draw] for draw in draws]
    loader = DataLoader(dataset, sampler=draws, batch_size=None, num_workers=2, persistent_workers=True)
    for _ in range(2):
        for sample, expected in zip(loader, here, strict=True):
            for key in ("image", "label"):
                assert torch.equal(sample[key], expected[key])


# --- refusals ---


@pytest.mark.parametrize("workers", [0, 2])
def test_all_failing_cases_are_named_and_nothing_stays_written(cases, tmp_path, workers):
    good = write_case(tmp_path / "carl", 3)
    (tmp_path / "anna" / "ct" / "slice_000.dcm").rename(tmp_path / "gone")
    odd = np.full(SHAPE, 7, np.uint8).transpose(2, 1, 0)
    nib.save(nib.Nifti1Image(odd, LPS_TO_RAS), tmp_path / "bert" / "label.nii.gz")
    with pytest.raises(PyrasegError) as refusal:
        SliceDataset(
            [*cases, good],
            preprocessing(),
            augmentation=augmentation(),
            cache_dir=tmp_path / "cache",
            num_workers=workers,
        )
    message = str(refusal.value)
    assert message.startswith("2 of 3 training cases cannot be used:")
    assert cases[0]["label"] in message and "16 x 20 x 3" in message and "16 x 20 x 2" in message
    assert cases[1]["label"] in message and "values 7" in message
    assert "carl" not in message
    assert not (tmp_path / "cache").exists()


def test_a_failing_case_spares_the_entries_of_an_earlier_run(dataset, cases, tmp_path):
    before = written(tmp_path / "cache")
    broken = {"image": cases[0]["image"], "label": cases[0]["image"]}
    with pytest.raises(PyrasegError, match="1 of 3 training cases"):
        SliceDataset([*cases, broken], preprocessing(), augmentation=augmentation(), cache_dir=tmp_path / "cache")
    assert written(tmp_path / "cache") == before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_no_fault_of_the_cases_and_what_was_prepared_stays(cases, tmp_path, limit_files, workers):
    large = write_case(tmp_path / "carl", 3, shape=(60, 20, 16))
    limit_files(20_000)
    with pytest.raises(DiskError, match=r"^Nothing can be written to \S+: File too large"):
        SliceDataset(
            [cases[0], large, cases[1]],
            preprocessing(),
            augmentation=augmentation(),
            cache_dir=tmp_path / "cache",
            num_workers=workers,
        )
    limit_files(-1)
    before = written(tmp_path / "cache")
    assert before
    made = SliceDataset([cases[0], large], preprocessing(), augmentation=augmentation(), cache_dir=tmp_path / "cache")
    assert len(made) == 63
    assert before.items() <= written(tmp_path / "cache").items()


def test_two_runs_may_fill_one_cache(cases, tmp_path):
    cache = SliceCache(tmp_path / "cache", preprocessing())
    entry = cache.write(cases[0])
    before = written(entry)
    assert cache.write(cases[0]) == entry  # as a run does that began before the other had written it
    assert written(tmp_path / "cache") == before


def test_image_and_label_of_unequal_size_are_refused_whatever_the_transform(cases, tmp_path):
    cache = SliceCache(tmp_path / "cache", unequal)
    with pytest.raises(PyrasegError, match=r"has \(4, 5, 6\) pixels after preprocessing, its label .* has \(4, 6, 5\)"):
        cache.write(cases[0])
    assert not (tmp_path / "cache").exists()


def unequal(item: dict) -> dict:
    return {"image": np.zeros((1, 4, 5, 6)), "label": np.zeros((1, 4, 6, 5))}


def test_a_defect_of_the_program_is_not_taken_for_a_bad_case(cases, tmp_path):
    with pytest.raises(ZeroDivisionError):
        SliceDataset(cases, defective, augmentation=augmentation(), cache_dir=tmp_path / "cache")
    with pytest.raises(ZeroDivisionError):
        check_cases(cases, defective, part="validation")


def defective(item: dict) -> dict:
    return {"image": 1 / 0}


def test_check_cases_names_all_that_fail(cases, tmp_path):
    check_cases(cases, preprocessing(), part="validation")
    broken = [{**cases[0], "label": str(tmp_path / "none.nii")}, cases[1], {**cases[1], "image": str(tmp_path / "no")}]
    with pytest.raises(PyrasegError, match=r"(?s)2 of 3 cases cannot be used:.*none\.nii.*no\b"):
        check_cases(broken, preprocessing(), part="validation")


def test_check_cases_refuses_an_empty_part_of_the_split():
    with pytest.raises(PyrasegError, match="The validation part of the data set's split has no case"):
        check_cases([], preprocessing(), part="validation")


def test_the_empty_part_is_named_with_what_to_do():
    with pytest.raises(PyrasegError, match=r"The test part .* Add cases under 'test' in its datalist\.json"):
        check_cases([], preprocessing(), part="test")
