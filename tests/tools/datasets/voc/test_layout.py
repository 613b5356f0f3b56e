# SPDX-License-Identifier: Apache-2.0
"""The layout of Pascal VOC: its palette, its lists, and how a data set in it is read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.datalist import load_cases
from bundle.pyraseg.datalists.voc import palette, write_lists, write_mask, write_picture

#: Colors of the 21 classes and of the void, as VOC's development kit lists them.
DEVKIT = [
    (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
    (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128),
    (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
]  # fmt: skip
NAMES = ("p0001_s01_0001", "p0001_s01_0002", "p0002_s01_0001", "p0003_s01_0001")
PATTERN = r"^(p\d+(?=_s\d+_)|.+)"


def test_palette_is_that_of_the_development_kit():
    assert [tuple(color) for color in palette()[:21].tolist()] == DEVKIT
    assert palette()[255].tolist() == [224, 224, 192]
    assert len(np.unique(palette(), axis=0)) == 256


def test_a_mask_keeps_its_indices_and_has_the_colors(tmp_path):
    classes = np.array([[0, 1, 5], [20, 255, 2]], np.uint8)
    write_mask(tmp_path / "mask.png", classes)
    image = Image.open(tmp_path / "mask.png")
    assert image.mode == "P"
    assert np.array_equal(image, classes)
    assert np.array_equal(image.convert("RGB"), palette()[classes])


def test_sixteen_bits_survive(tmp_path):
    numbers = np.array([[0, 1, 255], [256, 32768, 65535]], np.uint16)
    write_picture(tmp_path / "image.png", numbers)
    assert np.array_equal(Image.open(tmp_path / "image.png"), numbers)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree of four pictures of three patients."""
    for folder in ("JPEGImages", "SegmentationClass"):
        (tmp_path / folder).mkdir()
    for name in NAMES:
        write_picture(tmp_path / "JPEGImages" / f"{name}.jpg", np.zeros((4, 5), np.uint8))
        write_mask(tmp_path / "SegmentationClass" / f"{name}.png", np.zeros((4, 5), np.uint8))
    write_lists(tmp_path, {"training": NAMES[:2], "validation": NAMES[2:3], "test": NAMES[3:]})
    return tmp_path


def test_the_lists_are_the_split(tree):
    cases = load_cases(tree, patient_pattern=PATTERN)
    assert [[item["patient"] for item in cases[part]] for part in ("training", "validation", "test")] == [
        ["p0001", "p0001"],
        ["p0002"],
        ["p0003"],
    ]
    assert cases["test"][0]["image"] == str(tree / "JPEGImages" / f"{NAMES[3]}.jpg")
    assert cases["test"][0]["label"] == str(tree / "SegmentationClass" / f"{NAMES[3]}.png")
    assert (tree / "ImageSets/Segmentation/trainval.txt").read_text().split() == [*NAMES[:3]]


def test_lists_of_others_are_read(tree):
    """VOC 2012 has no list of its test part and other names; some trees come from Windows."""
    lists = tree / "ImageSets/Segmentation"
    (lists / "test.txt").unlink()
    (tree / "JPEGImages" / f"{NAMES[0]}.jpg").rename(tree / "JPEGImages" / "2007_000027.jpg")
    (tree / "SegmentationClass" / f"{NAMES[0]}.png").rename(tree / "SegmentationClass" / "2007_000027.png")
    (lists / "train.txt").write_bytes(b"2007_000027\r\n\r\n")
    cases = load_cases(tree, patient_pattern=PATTERN)
    assert [item["patient"] for item in cases["training"]] == ["2007_000027"]
    assert cases["test"] == []


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("", "lists no image in its train.txt"),
        ("gone\n", "train.txt names gone, but .* holds no JPEGImages/gone.jpg"),
        (f"{NAMES[0]}\n{NAMES[0]}\n", "listed twice"),
        ("../../secret\n", "is no name of a file"),
        (f"{NAMES[2]}\n", "listed twice"),  # in val.txt as well
    ],
)
def test_refused_lists(tree, listed, message):
    (tree / "ImageSets/Segmentation/train.txt").write_text(listed)
    with pytest.raises(PyrasegError, match=message):
        load_cases(tree)


def test_a_patient_in_two_lists_is_refused(tree):
    write = tree / "ImageSets/Segmentation"
    (write / "train.txt").write_text(f"{NAMES[0]}\n")
    (write / "val.txt").write_text(f"{NAMES[1]}\n")
    with pytest.raises(PyrasegError, match=r"1 patients .* in training and in validation"):
        load_cases(tree, patient_pattern=PATTERN)


def test_a_mask_that_is_missing_is_named(tree):
    (tree / "SegmentationClass" / f"{NAMES[3]}.png").unlink()
    with pytest.raises(PyrasegError, match=f"test.txt names {NAMES[3]}, but .* no SegmentationClass/{NAMES[3]}.png"):
        load_cases(tree)
