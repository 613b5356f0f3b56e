# SPDX-License-Identifier: Apache-2.0
"""Data sets in nnU-Net's layout, as its documentation of the format describes them."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.collecting import collect_cases
from bundle.pyraseg.datalists.making import write_split
from bundle.pyraseg.datalists.pairing import find_pairs
from tests.datalists.test_pairing import pairs, touch

VERSION_2 = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
MR = {"0": "FLAIR", "1": "T1", "2": "T1ce", "3": "T2"}


def describe(folder: Path, **content: Any) -> None:
    (folder / "dataset.json").write_text(json.dumps({**VERSION_2, **content}))


def test_version_2(tmp_path, caplog):
    describe(tmp_path)
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/1.2.3.9_0000.nii.gz", "imagesTr/unlabeled_0000.nii.gz")
    touch(tmp_path, "labelsTr/a.nii.gz", "labelsTr/1.2.3.9.nii.gz", "imagesTs/t_0000.nii.gz", "labelsTr/.hidden.nii.gz")
    assert find_pairs(tmp_path)[0] == "nnU-Net (dataset.json)"
    assert pairs(tmp_path) == {
        "a": ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"),
        "1.2.3.9": ("imagesTr/1.2.3.9_0000.nii.gz", "labelsTr/1.2.3.9.nii.gz"),
    }
    assert "1 files in" in caplog.text and "imagesTs are left out" in caplog.text
    assert "have no partner" in caplog.text and "unlabeled" in caplog.text


@pytest.mark.parametrize("ending", [".png", ".nrrd", ".mha", ".tif"])
def test_another_ending_and_an_rgb_picture_in_one_file(tmp_path, ending):
    names = {"0": "R", "1": "G", "2": "B"} if ending in (".png", ".tif") else {"0": "CT"}
    describe(tmp_path, file_ending=ending, channel_names=names)
    touch(tmp_path, f"imagesTr/a_0000{ending}", f"labelsTr/a{ending}", "imagesTr/notes_0000.txt")
    assert pairs(tmp_path) == {"a": (f"imagesTr/a_0000{ending}", f"labelsTr/a{ending}")}


def test_files_that_its_dataset_json_lists(tmp_path):
    listed = {"a": {"images": ["elsewhere/x.nii.gz"], "label": "elsewhere/y.nii.gz"}}
    describe(tmp_path, dataset=listed)
    with pytest.raises(PyrasegError, match=r"elsewhere/x\.nii\.gz, which is absent"):
        find_pairs(tmp_path)
    touch(tmp_path, "elsewhere/x.nii.gz", "elsewhere/y.nii.gz")
    assert pairs(tmp_path) == {"a": ("elsewhere/x.nii.gz", "elsewhere/y.nii.gz")}


@pytest.mark.parametrize("version", [1, 2])
def test_several_channels_are_refused_and_the_advice_works(tmp_path, version):
    touch(tmp_path, *(f"imagesTr/a_000{channel}.nii.gz" for channel in MR), "labelsTr/a.nii.gz")
    if version == 2:
        describe(tmp_path, channel_names=MR)
    else:
        training = [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]
        content = {"modality": MR, "labels": {"0": "background"}, "training": training}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(PyrasegError, match=r"4 channels .*\(FLAIR, T1, T1ce, T2\).*one image a case") as told:
        find_pairs(tmp_path)
    words = str(told.value).split('"')
    patterns = {"image_pattern": words[1], "label_pattern": words[3]}
    assert pairs(tmp_path, **patterns) == {"a": ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")}


def test_channels_that_nothing_states_are_found(tmp_path):
    describe(tmp_path)
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz")
    with pytest.raises(PyrasegError, match="2 channels"):
        find_pairs(tmp_path)


def test_version_1_lists_cases_without_their_channel(tmp_path):
    content = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}}
    content["training"] = [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    assert pairs(tmp_path) == {"a": ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["imagesTr/a_0000.nii.gz"], "has no folder labelsTr"),
        (["labelsTr/a.nii.gz"], "has no folder imagesTr"),
        (["imagesTr/a.nii.gz", "labelsTr/a.nii.gz"], "no image imagesTr/CASE_0000.nii.gz with a label"),
        (["imagesTr/a_0000.nrrd", "labelsTr/a.nrrd"], r"0 images and 0 labels are called so.*file_ending"),
    ],
)
def test_what_is_not_where_it_should_be(tmp_path, files, message):
    describe(tmp_path)
    touch(tmp_path, *files)
    with pytest.raises(PyrasegError, match=message):
        find_pairs(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"labels": {}}', "{"])
def test_a_dataset_json_of_neither(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(
        PyrasegError, match=r"no list of the Decathlon.*Nor is it one of nnU-Net|cannot be read as JSON"
    ):
        find_pairs(tmp_path)


def study(folder: Path, values: list[int], **content: Any) -> None:
    """Write eight cases that hold some values, each image of its own noise."""
    random = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in range(8):
        label = np.zeros((12, 12, 3), np.uint8)
        for value in values:
            label[value, 2:8] = value
        image = random.integers(-100, 100, label.shape).astype(np.int16)
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / "imagesTr" / f"c{case}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / "labelsTr" / f"c{case}.nii.gz")
    describe(folder, **content)


@pytest.mark.parametrize(
    ("labels", "held", "told"),
    [
        ({"background": 0, "liver": 1, "spleen": 2, "ignore": 3}, {"liver", "spleen"},
         'classes: class_names ["background", "liver", "spleen"]; value 3 is unlabeled (unknown_value)'),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3]}, {"1", "2", "3"}, "regions whole, core of dataset.json"),
        ({"background": 0, "liver": 1}, {"liver", "2", "3"}, 'classes: class_names ["background", "liver"]'),
    ],
)  # fmt: skip
def test_names_of_classes(tmp_path, caplog, labels, held, told):
    study(tmp_path, [1, 2, 3], labels=labels)
    data = collect_cases(tmp_path, threshold=0.99)
    assert all(classes == held for classes in data.classes)
    summary = write_split(data, tmp_path, tmp_path, shares=(0.5, 0.25, 0.25), seed=0)
    assert told in summary + caplog.text
    written = json.loads((tmp_path / "datalist.json").read_text())["labels"]
    assert written == {
        str(value): name for name, value in labels.items() if isinstance(value, int) and name != "ignore"
    }
