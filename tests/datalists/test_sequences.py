# SPDX-License-Identifier: Apache-2.0
"""Data lists of several sequences: made from folders, read, held against the model, and told when a file changes."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from bundle.pyraseg.core import PyrasegError, SequencePaths
from bundle.pyraseg.data import state_of_files
from bundle.pyraseg.datalists import case_names, collect_cases, load_cases, write_split
from bundle.pyraseg.transforms import MedicalImageReader
from tests.helpers.sequence_study import SEQUENCES, write_label, write_patient

CASES = [f"case_{number}" for number in range(10)]


def write_volume(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).normal(size=(9, 10, 11)).astype(np.float32)
    nib.save(nib.Nifti1Image(values if "label" not in str(path) else (values > 1).astype(np.uint8), np.eye(4)), path)


def write_files(folder: Path, pattern: str = "images/{case}_{sequence}.nii.gz", labels: str = "labels") -> Path:
    for number, case in enumerate(CASES):
        for place, sequence in enumerate(("t1", "flair")):
            write_volume(folder / pattern.format(case=case, sequence=sequence), 10 * number + place)
        write_volume(folder / labels / f"{case}.nii.gz", number)
    return folder


def all_items(cases: dict) -> list[dict]:
    return sorted((item for part in cases.values() for item in part), key=lambda item: item["label"])


@pytest.mark.parametrize("pattern", ["images/{case}_{sequence}.nii.gz", "images/{case}/{sequence}.nii.gz"])
def test_a_list_is_made_of_files_and_read_again(tmp_path, pattern):
    folder = write_files(tmp_path, pattern)
    data = collect_cases(folder, threshold=0.9, sequences=["t1", "flair"])
    write_split(data, folder, folder, shares=(0.6, 0.2, 0.2), seed=0)
    written = json.loads((folder / "datalist.json").read_text())
    for item in (item for part in ("training", "validation", "test") for item in written[part]):
        case = Path(item["label"]).name.removesuffix(".nii.gz")
        assert item["image"] == {name: pattern.format(case=case, sequence=name) for name in ("t1", "flair")}
    manifest = json.loads((folder / "manifest.json").read_text())["files"]
    assert len(manifest) == 3 * len(CASES)
    cases = load_cases(folder, sequences={"flair": "", "t1": ""})  # the first one stands for the case
    for case, item in zip(CASES, all_items(cases), strict=True):
        assert item["image"] == str(folder / pattern.format(case=case, sequence="flair"))
        assert list(item["image"].parts) == ["flair", "t1"]
    (name,) = case_names([item for item in all_items(cases) if CASES[3] in item["image"]], folder)
    assert name == pattern.format(case=CASES[3], sequence="flair")


def test_without_a_list_the_sequences_are_found_as_well(tmp_path):
    cases = load_cases(write_files(tmp_path), sequences=["t1", "flair"])
    assert [item["image"].parts["flair"] for item in all_items(cases)] == [
        str(tmp_path / "images" / f"{case}_flair.nii.gz") for case in CASES
    ]


@pytest.mark.slow
def test_nnunet_channels_are_sequences(tmp_path):
    for number, case in enumerate(CASES):
        for channel in range(3):
            write_volume(tmp_path / "imagesTr" / f"{case}_{channel:04d}.nii.gz", 10 * number + channel)
        write_volume(tmp_path / "labelsTr" / f"{case}.nii.gz", number)
    about = {"channel_names": {"0": "T1", "1": "T2", "2": "FLAIR"}, "labels": {"background": 0, "tumor": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps({**about, "file_ending": ".nii.gz"}))
    with pytest.raises(PyrasegError, match="--sequences t1=0000 t2=0001 flair=0002"):
        collect_cases(tmp_path, threshold=0.9)
    for sequences in ({"flair": "flair", "first": "0000"}, {"flair": "0002", "first": "T1"}):
        data = collect_cases(tmp_path, threshold=0.9, sequences=sequences)
        for case, item in zip(CASES, data.items, strict=True):
            folder = tmp_path / "imagesTr"
            parts = {"flair": str(folder / f"{case}_0002.nii.gz"), "first": str(folder / f"{case}_0000.nii.gz")}
            assert item["image"].parts == parts
    with pytest.raises(PyrasegError, match=r"lacks the sequence dwi.*0000 T1; 0001 T2; 0002 FLAIR"):
        collect_cases(tmp_path, threshold=0.9, sequences={"flair": "", "dwi": ""})


def test_a_study_in_one_folder_names_the_series_of_each(tmp_path):
    files = write_patient(tmp_path / "parts", 1)
    folder = tmp_path / "study"
    folder.mkdir()
    for file in (tmp_path / "parts").rglob("*.dcm"):
        os.rename(file, folder / f"{file.parent.name}_{file.name}")
    sources = [pydicom.dcmread(folder / f"t1_{file.name}") for file in files]
    write_label(folder / "label.dcm", 1, sources)
    data = collect_cases(folder, threshold=1, sequences=SEQUENCES)
    (item,) = data.items
    assert item["series"].keys() == {"t1", "flair"} and item["series"]["t1"] == sources[0].SeriesInstanceUID
    image, meta = MedicalImageReader(sequences=SEQUENCES).get_data([item["image"]])
    assert image.shape == (44, 48, 12, 2) and meta["series_uid"] == sources[0].SeriesInstanceUID
    listed = {"training": [{"image": dict.fromkeys(SEQUENCES, "."), "series": item["series"], "label": "label.dcm"}]}
    (folder / "datalist.json").write_text(json.dumps(listed))
    (again,) = load_cases(folder, sequences=SEQUENCES)["training"]
    assert [part.series for part in again["image"].parts.values()] == list(item["series"].values())


def test_a_label_on_another_sequence_than_the_first_is_told(tmp_path):
    files = write_patient(tmp_path, 1)
    write_label(tmp_path / "label.dcm", 1, [pydicom.dcmread(file) for file in files])
    with pytest.raises(PyrasegError, match="none refers to a series of the first sequence, flair"):
        collect_cases(tmp_path, threshold=1, sequences={"flair": "*FLAIR*", "t1": "T1*"})


def test_cases_without_a_sequence_are_named_or_kept(tmp_path):
    write_files(tmp_path)
    (tmp_path / "images" / f"{CASES[4]}_flair.nii.gz").unlink()
    with pytest.raises(PyrasegError, match=rf"1 of 10 cases .*\n.*{CASES[4]} lacks the sequence flair"):
        load_cases(tmp_path, sequences=["t1", "flair"])
    item = all_items(load_cases(tmp_path, sequences=["t1", "flair"], allow_missing=True))[4]
    assert item["image"].parts["flair"] is None and item["image"].missing == ["flair"]
    with pytest.raises(PyrasegError, match=rf"{CASES[4]} lacks the sequence flair"):  # that labels are drawn on
        load_cases(tmp_path, sequences=["flair", "t1"], allow_missing=True)


@pytest.mark.parametrize(
    ("image", "sequences", "words"),
    [
        ({"t1": "t1.nii"}, ["t1", "flair"], r"t1\.nii of .* lacks the sequence flair of t1, flair; it has t1\. Add it"),
        ({"t1": "t1.nii"}, None, "names the sequences t1 of"),
        ("t1.nii", ["t1", "flair"], "has one path for"),
        ({}, ["t1"], "lacks the path 'image'"),
        ({"t1": 3}, ["t1"], "lacks the path 'image'"),
        ({"t1": "t1.nii", "flair": "none.nii"}, ["t1", "flair"], r"1 of the paths .* do not exist, .*none\.nii"),
    ],
)
def test_lists_that_are_not_of_the_model(tmp_path, image, sequences, words):
    for name in ("t1.nii", "label.nii"):
        write_volume(tmp_path / name, 0)
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [{"image": image, "label": "label.nii"}]}))
    with pytest.raises(PyrasegError, match=words):
        load_cases(tmp_path, sequences=sequences)


def test_a_change_of_any_sequence_is_seen(tmp_path):
    for name in ("a.nii", "b.nii", "label.nii"):
        write_volume(tmp_path / name, 0)
    a, b, label = (str(tmp_path / name) for name in ("a.nii", "b.nii", "label.nii"))

    def state(parts: dict) -> str:
        return state_of_files({"image": SequencePaths(parts), "label": label})

    before = state({"t1": a, "flair": b})
    assert before == state({"t1": a, "flair": b})
    assert len({before, state({"t1": b, "flair": a}), state({"t1": a, "flair": None})}) == 3
    os.utime(b, (1, 1))
    assert state({"t1": a, "flair": b}) != before
