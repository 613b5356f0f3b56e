# SPDX-License-Identifier: Apache-2.0
"""Copies of volumes are found, and strangers in the same frame are not."""

import io
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import zoom

from bundle.pyraseg.datalists.duplicates import THRESHOLD, find_duplicates
from bundle.pyraseg.datalists.volume_copies import alike_volumes, copies_among, reduce_volume
from tests.helpers.heads import head


def jpeg(values: np.ndarray) -> np.ndarray:
    """Return the gray values of every slice, saved as JPEG and read again."""
    gray = np.uint8((values - values.min()) / np.ptp(values) * 255)
    slices = []
    for plane in np.moveaxis(gray, 2, 0):
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(plane)).save(file, "JPEG", quality=75)
        slices.append(np.asarray(Image.open(file)))
    return np.stack(slices, axis=2)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "three quarters of the size": lambda v: zoom(v, 0.75, order=1),
    "more slices": lambda v: zoom(v, (1, 1, 1.3), order=1),
    "cropped": lambda v: v[2:-2, 2:-2, 2:-2],
    "cropped on three sides": lambda v: v[5:, :-4, 3:],
    "half of the slices": lambda v: v[..., : v.shape[2] // 2],
    "clipped": lambda v: v.clip(-160, 240),
    "mirrored": lambda v: v[::-1],
    "upside down": lambda v: v[:, :, ::-1],
    "noise": lambda v: v + np.random.default_rng(9).normal(0, 0.01 * v.std(), v.shape),
    "shifted by a slice": lambda v: np.roll(v, 1, 2),
    "8 bits": lambda v: np.rint((v - v.min()) / np.ptp(v) * 255),
    "inverted": lambda v: -v,
}


def copies(volumes: Sequence[np.ndarray]) -> set[tuple[int, int]]:
    reduced = [reduce_volume(np.asarray(v, np.float32), np.eye(4)) for v in volumes]
    return set(copies_among(alike_volumes(reduced, THRESHOLD)))


@pytest.fixture(scope="module")
def people() -> list[np.ndarray]:
    return [head(person) for person in range(14)]


@pytest.mark.slow
def test_strangers_in_one_frame_are_no_pairs(people):
    assert copies(people) == set()


def test_strangers_of_whom_all_are_alike_are_no_pairs(people):
    common = np.mean(people, axis=0)
    alike = [reduce_volume((common + v).astype(np.float32), np.eye(4)) for v in people[:6]]
    found = alike_volumes(alike, 0.7)
    assert len(found) > 10 and not copies_among(found)


# Those that change the extent, for which two frames are searched, in two sets; and those that do not.
@pytest.mark.slow
@pytest.mark.parametrize("names", [list(CHANGES)[:3], list(CHANGES)[3:5], list(CHANGES)[5:]], ids=", ".join)
def test_every_planted_copy_is_found_and_nothing_else(people, names):
    some = people[:8]  # with seven copies more than 12, from which on few votes of blocks are not enough
    planted = [np.ascontiguousarray(CHANGES[name](some[place])) for place, name in enumerate(names)]
    assert copies([*some, *planted]) == {(place, len(some) + place) for place in range(len(names))}


@pytest.mark.parametrize("count", [2, 3])
def test_in_small_sets(people, count):
    assert copies([*people[:count], people[1][::-1]]) == {(1, count)}


@pytest.mark.slow
def test_when_half_of_the_images_are_copies(people):
    half = people[:5]
    mirrored = [v[::-1] for v in half]
    assert copies([*half, *mirrored]) == {(place, 5 + place) for place in range(5)}


@pytest.mark.slow
@pytest.mark.parametrize(("count", "strangers"), [(2, 0), (3, 0), (4, 0), (3, 1), (4, 1)])
def test_when_most_volumes_are_one(people, count, strangers):
    assert copies([people[0]] * count + people[1 : 1 + strangers]) == set(combinations(range(count), 2))


@pytest.mark.slow
@pytest.mark.parametrize("strangers", [0, 1])
def test_when_most_volumes_are_one_with_noise_of_their_own(people, strangers):
    random = np.random.default_rng(4)
    noisy = [people[0] + random.normal(0, 3, people[0].shape) for _ in range(5)]
    assert copies([*noisy, *people[1 : 1 + strangers]]) == set(combinations(range(5), 2))


def test_a_copy_stored_in_another_orientation(people, tmp_path):
    for name, values, affine in (
        ("a", people[0], np.eye(4)),
        ("b", people[1], np.eye(4)),
        ("c", people[0][::-1].swapaxes(0, 2), np.eye(4)[[2, 1, 0, 3]] * [[-1], [1], [1], [1]]),
    ):
        nib.save(nib.Nifti1Image(np.ascontiguousarray(values), affine), tmp_path / f"{name}.nii.gz")
    (found,) = find_duplicates(sorted(tmp_path.iterdir()))
    assert (found.first, found.second) == (0, 2)


@pytest.mark.parametrize("values", [np.zeros((9, 9, 9)), np.full((40, 30, 20), 7.0)])
def test_volumes_without_structure(values, people):
    assert copies([values, people[0], values]) == set()


def test_a_volume_is_reduced_to_means_in_the_memory_of_few_planes():
    volume = np.random.default_rng(0).normal(0, 100, (144, 96, 96)).astype(np.float32)
    tracemalloc.start()
    levels = reduce_volume(volume, np.eye(4)).levels
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2 * volume.nbytes
    means = volume.reshape(48, 3, 48, 2, 48, 2).mean(axis=(1, 3, 5), dtype=float).ravel()
    ranks = np.argsort(np.argsort(means)).reshape(levels.shape) / (means.size - 1) * 255
    assert np.abs(levels - ranks).max() < 1


@pytest.mark.slow
def test_copies_of_real_volumes(real_data: Path):
    files = sorted((real_data / "mr_hippocampus" / "images").iterdir())[:40]
    volumes = [np.asarray(nib.load(path).dataobj, np.float32) for path in files]
    volumes = [(v - v.mean()) / v.std() * 100 for v in volumes]
    planted = [
        np.ascontiguousarray(change(volumes[3 * place])) for place, change in enumerate([*CHANGES.values(), jpeg])
    ]
    expected = {(3 * place, 40 + place) for place in range(len(CHANGES) + 1)}
    assert copies([*volumes, *planted]) == expected
