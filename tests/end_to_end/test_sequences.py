# SPDX-License-Identifier: Apache-2.0
"""A study of several sequences goes from a folder to a data list, a model, results and back.

A lesion is seen only where T1 and FLAIR are looked at together; they lie on different grids.
"""

import csv
import json
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from tests.helpers.commands import config_files, monai_bundle
from tests.helpers.sequence_study import SEQUENCES, T1, lesion, write_label, write_patient
from tests.helpers.warm import python

pytestmark = pytest.mark.slow  # a training each

PATIENTS, WITHOUT = 8, 3  # the one of the patients who has no FLAIR
KNOBS = [
    "--sequences", str(SEQUENCES), "--sequence_dropout", "0.1", "--modality", "MR", "--body_part", "BRAIN",
    "--class_names", "['background','lesion']", "--spacing", "1.0", "--context_slices", "0",
    "--encoder", "resnet18", "--output_stride", "32",
    "--windows", "{'t1': [{'center': 250, 'width': 400}], 'flair': [{'percentiles': [1, 99]}]}",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Path]:
    """Train on the study, of which a patient has no FLAIR; segment two patients, one of whom has none."""
    work = tmp_path_factory.mktemp("sequences")
    places = {name: work / name for name in ("study", "inputs", "out", "model.pt", "runs")}
    for patient in range(PATIENTS):
        folder = places["study"] / f"patient_{patient}"
        files = write_patient(folder, patient, flair=patient != WITHOUT)
        write_label(folder / "label.dcm", patient, [pydicom.dcmread(file) for file in files])
    making = python(
        "-m", "bundle.pyraseg", "datalist", str(places["study"]), "--threshold", "1",
        "--allow-missing", "--sequences", *(f"{name}={called}" for name, called in SEQUENCES.items()), cwd=work,
    )  # fmt: skip
    assert making.returncode == 0, making.stdout + making.stderr
    options = [*KNOBS, "--model_file", str(places["model.pt"])]
    training = monai_bundle(
        "run", "training", "--config_file", config_files("train.json"), *options, "--num_workers", "0",
        "--dataset_dir", str(places["study"]), "--cache_dir", str(work / "cache"), "--output_dir", str(places["runs"]),
        "--slice_size", "[48,48]", "--pretrained", "False", "--epochs", "6", "--samples_per_epoch", "128",
        "--batch_size", "16", "--background_fraction", "0.3", "--val_interval", "6", "--learning_rate", "0.005",
        "--encoder_learning_rate", "0.005", cwd=work,
    )  # fmt: skip
    assert training.returncode == 0, training.stdout + training.stderr
    write_patient(places["inputs"] / "both", 90)
    write_patient(places["inputs"] / "alone", 91, flair=False)
    inferring = monai_bundle(
        "run", "inferring", "--config_file", config_files("inference.json"), *options,
        "--dataset_dir", str(places["inputs"]), "--output_dir", str(places["out"]), "--outputs",
        "['labels','overlay','volumes','seg']", cwd=work,
    )  # fmt: skip
    assert inferring.returncode == 0, inferring.stdout + inferring.stderr
    (work / "log.txt").write_text(inferring.stdout + inferring.stderr)
    return {**places, "log": work / "log.txt"}


def test_the_list_names_the_sequences_of_each_case(trained):
    listed = json.loads((trained["study"] / "datalist.json").read_text())
    items = [item for part in ("training", "validation", "test") for item in listed[part]]
    assert len(items) == PATIENTS
    for item in items:
        patient = Path(item["label"]).parts[0]
        flair = {} if patient == f"patient_{WITHOUT}" else {"flair": f"{patient}/flair"}
        assert item["image"] == {"t1": f"{patient}/t1", **flair}


def test_the_segmentation_refers_to_the_first_sequence_and_lies_in_its_grid(trained):
    (path,) = (trained["out"] / "both").rglob("*_seg.dcm")
    segmentation = highdicom.seg.segread(path)
    sources = [pydicom.dcmread(file) for file in sorted((trained["inputs"] / "both" / "t1").iterdir())]
    referenced = {uid for _, _, uid in segmentation.get_source_image_uids()}
    assert referenced <= {source.SOPInstanceUID for source in sources}
    assert segmentation.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
    volume = segmentation.get_volume(combine_segments=True)
    indices = np.stack(np.meshgrid(*map(np.arange, volume.spatial_shape), indexing="ij"), axis=-1).reshape(-1, 3)
    points = volume.map_indices_to_reference(indices)
    there = np.rint((points - T1.origin) / np.array(T1.spacing)[::-1])
    np.testing.assert_allclose(points, T1.origin + there * np.array(T1.spacing)[::-1], atol=1e-3)
    predicted, truth = volume.array.ravel() > 0, lesion(90, points)
    dice = 2 * (predicted & truth).sum() / (predicted.sum() + lesion(90, T1.points()).sum())
    assert dice > 0.7  # balls A or C alone, or both with it, cannot give that: they are as large as B


def test_a_missing_sequence_is_told_in_the_log_and_in_the_table(trained):
    assert "lacks the sequence flair: the model goes without it" in trained["log"].read_text()
    with (trained["out"] / "volumes.csv").open(newline="") as file:
        missing = {row["case"]: row["missing_sequences"] for row in csv.DictReader(file)}
    assert missing == {"both/t1": "", "alone/t1": "flair"}


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"--sequence_dropout": "0"}, "sequence_dropout: 0.1 in its training, 0 here"),
        ({"--sequences": "{'flair': '*FLAIR*', 't1': 'T1*'}", "--windows": "[[0, 1]]"}, "sequences"),
    ],
    ids=["other dropout", "other order"],
)
def test_what_the_weights_were_not_trained_with_is_refused(trained, tmp_path, knobs, words):
    options = dict(zip(KNOBS[::2], KNOBS[1::2], strict=True)) | knobs
    if "--windows" in knobs:
        options["--windows"] = "[{'percentiles': [1, 99]}]"
    run = monai_bundle(
        "run", "inferring", "--config_file", config_files("inference.json"),
        *(word for pair in options.items() for word in pair), "--model_file", str(trained["model.pt"]),
        "--dataset_dir", str(trained["inputs"]), "--output_dir", str(tmp_path), cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode != 0 and words in run.stdout + run.stderr
