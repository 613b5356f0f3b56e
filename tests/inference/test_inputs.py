# SPDX-License-Identifier: Apache-2.0
"""Everything in a folder is segmented or named."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.inference.inputs import InputDataset, find_inputs
from tests.dicom.files import uid, write_image, write_series


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Hold one of everything, the good and the bad."""
    pixels = np.zeros((3, 8, 6), np.int16)
    write_series(tmp_path / "a" / "ct", pixels, SeriesInstanceUID=uid("one"))
    write_series(tmp_path / "two", pixels, SeriesInstanceUID=uid("two"))
    write_series(tmp_path / "two" / "more", pixels, SeriesInstanceUID=uid("three"))
    write_image(tmp_path / "nameless", pixels[0], SeriesInstanceUID=uid("four"))
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 3), np.int16), np.eye(4)), tmp_path / "volume.nii.gz")
    Image.new("RGB", (7, 5)).save(tmp_path / "photo.v2.jpg")
    Image.new("L", (7, 5)).save(tmp_path / "photo.v2.png")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_every_image_is_one_input_named_after_its_file_or_folder(folder):
    images = {item["name"] for item in find_inputs(folder) if "image" in item}
    assert images == {"a/ct", "two", "two/more", "nameless", "volume", "photo.v2_1", "photo.v2_2", "broken"}


def test_what_is_no_image_is_named_with_its_fault(folder):
    faults = {item["name"]: item["fault"] for item in find_inputs(folder) if "fault" in item}
    assert faults == {"notes.txt": "is not DICOM", "empty": "is an empty folder"}


def test_a_broken_input_stops_no_other(folder):
    def load(item):
        if item["name"] == "broken":
            raise PyrasegError("cut short")
        return item

    dataset = InputDataset(find_inputs(folder), load)
    assert len(list(dataset)) == 7
    with pytest.raises(PyrasegError, match=r"(?s)3 of 10 .*broken: cut short.*empty: .*notes.txt: "):
        dataset.require_all()
    assert len(list(dataset)) == 7 and len(dataset.failures) == 3  # a second pass starts anew


def test_a_single_file_is_an_input(folder):
    assert [item["name"] for item in find_inputs(folder / "volume.nii.gz")] == ["volume"]
    assert [item["name"] for item in find_inputs(folder / "nameless")] == ["nameless"]


def test_refuses_nothing_to_do(tmp_path):
    with pytest.raises(PyrasegError, match=r"nothing at .*absent"):
        find_inputs(tmp_path / "absent")
    with pytest.raises(PyrasegError, match="holds no image"):
        find_inputs(tmp_path)
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(PyrasegError, match="holds no image: 1 file"):
        find_inputs(tmp_path)
