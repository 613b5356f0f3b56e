# SPDX-License-Identifier: Apache-2.0
"""Copies are found, strangers are not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.duplicates import THRESHOLD, find_duplicates
from tests.helpers.dicom_files import write_series
from tests.helpers.textures import texture, volume

#: Every pair of dermoscopy_isic2017 that is found at the default threshold: the same photograph, or the same lesion in
#: the same frame, as anyone sees who looks at them.
KNOWN = {
    ("0000164", "0014795"), ("0000165", "0014788"), ("0000177", "0014657"), ("0000204", "0014748"),
    ("0000205", "0014742"), ("0000206", "0014739"), ("0000222", "0014846"), ("0000223", "0014818"),
    ("0000224", "0014791"), ("0000229", "0014771"), ("0012290", "0013594"), ("0012672", "0012673"),
    ("0012756", "0013184"),
}  # fmt: skip


def saved_again(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".jpg"), quality=40)


def shifted(image: Image.Image, path: Path) -> None:
    Image.fromarray(np.roll(np.asarray(image), (1, 1), (0, 1))).save(path.with_suffix(".png"))


def shifted_and_saved_again(image: Image.Image, path: Path) -> None:
    Image.fromarray(np.roll(np.asarray(image), 1, 1)).save(path.with_suffix(".jpg"), quality=50)


def scaled(image: Image.Image, path: Path) -> None:
    image.resize((image.width * 2 // 3, image.height * 2 // 3)).save(path.with_suffix(".png"))


def darkened(image: Image.Image, path: Path) -> None:
    Image.fromarray(np.uint8(np.asarray(image) * 0.6 + 5)).save(path.with_suffix(".png"))


def stored_turned(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # to be shown, turned clockwise
    image.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), quality=90, exif=exif)


CHANGES = [saved_again, shifted, shifted_and_saved_again, scaled, darkened, stored_turned]


def write_photographs(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(texture(number)).save(folder / f"{number:02}.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found(change, tmp_path):
    images = write_photographs(tmp_path, 12)
    change(Image.open(images[5]), tmp_path / "copy")
    images = sorted(tmp_path.iterdir())
    (found,) = find_duplicates(images)
    assert (images[found.first].stem, images[found.second].stem) == ("05", "copy")
    assert not found.exact and found.score > 0.9


def test_a_copy_is_found_in_another_format(tmp_path):
    images = write_photographs(tmp_path, 5)
    Image.open(images[2]).save(tmp_path / "copy.bmp")
    images = sorted(tmp_path.iterdir())
    (found,) = find_duplicates(images)
    assert (images[found.first].name, images[found.second].name) == ("02.png", "copy.bmp")
    assert found.exact and str(found) == "the same pixels"


def test_one_path_given_twice_is_one_image(tmp_path):
    images = write_photographs(tmp_path, 3)
    (found,) = find_duplicates([*images, images[1]])
    assert (found.first, found.second, found.exact) == (1, 3, True)


def test_images_without_structure_are_compared_pixel_by_pixel(tmp_path):
    for name, value, size in (("a", 7, 20), ("b", 7, 20), ("c", 8, 20), ("d", 7, 21)):
        Image.fromarray(np.full((size, 20), value, np.uint8)).save(tmp_path / f"{name}.png")
    (found,) = find_duplicates(sorted(tmp_path.iterdir()))
    assert (found.first, found.second, found.exact) == (0, 1, True)


def save_volume(values: np.ndarray, path: Path) -> None:
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda v: v * 3 - 7,
        lambda v: np.roll(v, 1, 0),
        lambda v: np.roll(v, 1, 2),
        lambda v: v + np.random.default_rng(9).normal(0, 0.02 * v.std(), v.shape),
    ],
    ids=["other units", "one voxel", "one slice", "noise"],
)
def test_a_changed_copy_of_a_volume_is_found(change: Callable, tmp_path):
    for number in range(6):
        save_volume(volume(number), tmp_path / f"{number}.nii.gz")
    save_volume(change(volume(3)), tmp_path / "copy.nii.gz")
    (found,) = find_duplicates(sorted(tmp_path.iterdir()))
    assert (found.first, found.second) == (3, 6)


def test_a_dicom_series_and_its_nifti_are_the_same(tmp_path):
    values = np.int16(100 * volume(0))
    write_series(tmp_path / "a", values.transpose(2, 1, 0))
    write_series(tmp_path / "b", np.int16(100 * volume(1)).transpose(2, 1, 0))
    save_volume(values.astype(np.float32), tmp_path / "c.nii.gz")
    (found,) = find_duplicates([tmp_path / name for name in ("a", "b", "c.nii.gz")])
    assert (found.first, found.second) == (0, 2)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16", "P", "1"])
def test_every_kind_of_photograph(mode, tmp_path):
    for name in "ab":
        gray = texture(ord(name))
        image = Image.fromarray(np.uint16(gray) * 200) if mode == "I;16" else Image.fromarray(gray).convert(mode)
        image.save(tmp_path / f"{name}.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "c.png")
    (found,) = find_duplicates(sorted(tmp_path.iterdir()))
    assert (found.first, found.second, found.exact) == (0, 2, True)


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(PyrasegError, match=r"a\.png cannot be read as an image"):
        find_duplicates([tmp_path / "a.png"])


@pytest.mark.parametrize("threshold", [0, -1, 1.5])
def test_refused_thresholds(threshold):
    with pytest.raises(PyrasegError, match="between 0 and 1"):
        find_duplicates([], threshold=threshold)


# --- real data ---


@pytest.fixture(scope="module")
def isic(real_data) -> list[Path]:
    return sorted((real_data / "dermoscopy_isic2017/images").iterdir())


@pytest.mark.slow
def test_the_pairs_of_isic_and_no_others(isic):
    found = {(isic[p.first].stem[5:], isic[p.second].stem[5:]) for p in find_duplicates(isic)}
    assert found == KNOWN


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_of_real_photographs_are_found(isic, change, tmp_path):
    chosen = isic[::40]
    for path in chosen:
        change(Image.open(path), tmp_path / path.stem)
    copies = sorted(tmp_path.iterdir())
    found = {(p.first, p.second) for p in find_duplicates([*chosen, *copies])}
    missed = [path.name for i, path in enumerate(chosen) if (i, i + len(chosen)) not in found]
    assert missed == []


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "pairs"), [("chest_xray_lungs", 1), ("mr_hippocampus", 0), ("retina_vessels", 0)])
def test_other_real_sets(real_data, folder, pairs):
    found = find_duplicates(sorted((real_data / folder / "images").iterdir()))
    assert len(found) == pairs  # the one: CHNCXR_0477_1 and CHNCXR_0605_1, plainly one person
    assert THRESHOLD == 0.8
