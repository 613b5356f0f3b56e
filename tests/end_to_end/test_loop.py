# SPDX-License-Identifier: Apache-2.0
"""Train, evaluate and infer through the real commands, and do the sums again with other libraries."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from bundle.pyraseg.inference import GUARD, read_guard
from bundle.pyraseg.training.checkpoints import read_model
from bundle.pyraseg_tools.datasets.phantom.study import write_phantom_study
from tests.helpers.commands import as_yaml, config_files, monai_bundle

CLASSES = {"liver": 1, "lesion": 2, "spleen": 3, "kidney": 4}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Path]:
    """Train for two short epochs on a small study, evaluate and infer on its test part, from a foreign directory.

    The training is that of the JSON configs, the rest that of the same as YAML; test_dermoscopy.py trains from YAML.
    Each is an interpreter of its own: these are the runs that find an import which is missing.
    """
    work = tmp_path_factory.mktemp("loop")
    places = {name: work / name for name in ("study", "cache", "runs", "scores", "out", "inputs")}
    places["model"] = work / "models" / "model.pt"
    write_phantom_study(places["study"], patients=8, size=64)
    configs = as_yaml(work / "configs", "train", "evaluate", "inference")
    common = ["--num_workers", "0", "--spacing", "5", "--slice_size", "[96,96]", "--dataset_dir", str(places["study"])]
    common += ["--cache_dir", str(places["cache"]), "--model_file", str(places["model"])]
    training = monai_bundle(
        "run", "training", "--config_file", config_files("train.json"), *common,
        "--output_dir", str(places["runs"]), "--epochs", "2", "--samples_per_epoch", "64", "--val_interval", "1",
        cwd=work, fresh=True,
    )  # fmt: skip
    assert training.returncode == 0, training.stdout + training.stderr
    assert "Best validation mean Dice" in training.stdout
    evaluating = monai_bundle(
        "run", "evaluating", "--config_file", config_files("train.yaml", "evaluate.yaml", folder=configs), *common,
        "--output_dir", str(places["scores"]), "--training_dir", str(places["runs"]), cwd=work, fresh=True,
    )  # fmt: skip
    assert evaluating.returncode == 0, evaluating.stdout + evaluating.stderr
    for case in ConfigParser.load_config_file(places["study"] / "datalist.json")["test"]:
        shutil.copytree(places["study"] / case["image"], places["inputs"] / case["image"])
    inferring = monai_bundle(
        "run", "inferring", "--config_file", config_files("inference.yaml", folder=configs), "--spacing", "5",
        "--dataset_dir", str(places["inputs"]), "--output_dir", str(places["out"]),
        "--model_file", str(places["model"]), cwd=work, fresh=True,
    )  # fmt: skip
    assert inferring.returncode == 0, inferring.stdout + inferring.stderr
    return places


@pytest.mark.slow
def test_a_training_starts_from_a_model(trained, tmp_path):
    stages = [{"name": "still", "epoch_fraction": 1.0, "learning_rates": {"head": 1e-12}}]
    run = monai_bundle(
        "run", "training", "--config_file", config_files("train.json"),
        "--num_workers", "0", "--spacing", "5", "--slice_size", "[96,96]", "--dataset_dir", str(trained["study"]),
        "--cache_dir", str(trained["cache"]), "--model_file", str(tmp_path / "model.pt"), "--output_dir",
        str(tmp_path / "runs"), "--epochs", "1", "--samples_per_epoch", "16", "--val_interval", "1",
        "--ema_decay", "0.9", "--start_from", str(trained["model"]), "--plan#stages", str(stages), cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"The training starts from {trained['model']}" in run.stdout
    started, model = (torch.load(path, weights_only=True) for path in (tmp_path / "model.pt", trained["model"]))
    for name, value in model.items():
        if name.startswith("encoder.") or ".classifier." in name:
            torch.testing.assert_close(started[name], value, rtol=1e-5, atol=1e-6)


def truth_on(prediction: nib.Nifti1Image, label: Path) -> np.ndarray:
    """Return the label on the voxels of the prediction, by millimeters, without any code of the package."""
    if label.suffix == ".gz":
        stored = nib.load(label)
        to_stored = np.linalg.inv(stored.affine) @ prediction.affine
        voxels = np.stack(np.meshgrid(*map(np.arange, prediction.shape), indexing="ij")).reshape(3, -1)
        indices = np.rint(to_stored[:3, :3] @ voxels + to_stored[:3, 3:]).astype(int)
        return np.asarray(stored.dataobj)[tuple(indices)].reshape(prediction.shape)
    truth = np.zeros(prediction.shape, int)
    segmentation = pydicom.dcmread(label)
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    spacing = [float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing]
    to_voxel = np.linalg.inv(prediction.affine) @ np.diag([-1, -1, 1, 1])  # LPS mm to indices
    for frame, group in zip(segmentation.pixel_array, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        rows, columns = np.nonzero(frame)
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        places = position + columns[:, None] * spacing[1] * row + rows[:, None] * spacing[0] * column
        indices = np.rint(to_voxel[:3, :3] @ places.T + to_voxel[:3, 3:]).astype(int)
        truth[tuple(indices)] = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    return truth


def test_the_csv_equals_dice_recomputed_from_the_files(trained):
    labels = {
        case["image"]: case["label"]
        for case in ConfigParser.load_config_file(trained["study"] / "datalist.json")["test"]
    }
    with (trained["scores"] / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == set(labels) and len(rows) == len(CLASSES) * len(labels)
    scored = 0
    for row in rows:
        # A series is named after its folder, a lone multi-frame file after itself.
        (path,) = (trained["out"] / row["case"]).parent.rglob("*.nii.gz")
        prediction = nib.load(path)
        predicted = np.asarray(prediction.dataobj) == CLASSES[row["class"]]
        truth = truth_on(prediction, trained["study"] / labels[row["case"]]) == CLASSES[row["class"]]
        assert (int(row["truth_voxels"]), int(row["predicted_voxels"])) == (truth.sum(), predicted.sum())
        if truth.any() or predicted.any():
            expected = 2 * (truth & predicted).sum() / (truth.sum() + predicted.sum())
            assert float(row["dice"]) == pytest.approx(expected, abs=1e-6)
            scored += expected > 0
        else:
            assert row["dice"] == ""
    summary = json.loads((trained["scores"] / "summary.json").read_text())
    assert summary["cases"] == len(labels) and set(summary["classes"]) == set(CLASSES)
    assert scored > 0  # two epochs find some liver: the comparison is not one of zeros


def test_the_report_says_what_was_used(trained):
    assert {path.name for path in trained["scores"].iterdir()} == {
        "scores.csv", "lesions.csv", "review.csv", "summary.json", "pictures.json", "evaluation.json", "report.html",
    }  # fmt: skip
    page = (trained["scores"] / "report.html").read_text()
    assert hashlib.sha256(trained["model"].read_bytes()).hexdigest() in page
    assert "best epoch of the training whose curves are shown" in page
    record = json.loads((trained["runs"] / "run.json").read_text())
    assert f"{record['split']['hash']} (4 training, 2 validation, 2 test cases)" in page
    assert record["versions"]["torch"] in page and "cases[&#39;test&#39;]" in page
    assert str(trained["scores"].parent) not in page  # no path of the machine


@pytest.mark.slow
def test_a_temperature_travels_into_the_probabilities_and_leaves_the_labels(trained, tmp_path):
    """Calibrate, then infer again: the label maps are the same, the probabilities are softer or harder by it."""
    model = tmp_path / "model.pt"
    shutil.copy(trained["model"], model)
    calibrating = monai_bundle(
        "run", "calibrating", "--config_file", config_files("train.json", "calibrate.json"), "--num_workers", "0",
        "--spacing", "5", "--slice_size", "[96,96]", "--dataset_dir", str(trained["study"]), "--cache_dir",
        str(trained["cache"]), "--model_file", str(model), cwd=tmp_path, fresh=True,
    )  # fmt: skip
    assert calibrating.returncode == 0, calibrating.stdout + calibrating.stderr
    path = tmp_path / "model.temperature.json"
    content = json.loads(path.read_text())
    assert f"Temperature {content['temperature']:.3f}, fitted to the boundaries of" in calibrating.stdout
    found = {}
    for temperature in (content["temperature"], 1.0):
        path.write_text(json.dumps({**content, "temperature": temperature}))
        out = tmp_path / f"out_{temperature}"
        inferring = monai_bundle(
            "run", "inferring", "--config_file", config_files("inference.json"), "--spacing", "5",
            "--dataset_dir", str(trained["inputs"]), "--output_dir", str(out), "--model_file", str(model),
            "--save_probabilities", "true", "--uncertainty_flips", "[[0]]", cwd=tmp_path,
        )  # fmt: skip
        assert inferring.returncode == 0, inferring.stdout + inferring.stderr
        assert len((out / "review.csv").read_text().split()) == 1 + len(list(trained["out"].rglob("*.nii.gz")))
        found[temperature] = out
    for expected in trained["out"].rglob("*.nii.gz"):
        name = expected.relative_to(trained["out"])
        labels = np.asarray(nib.load(expected).dataobj)
        stem = name.as_posix().removesuffix(".nii.gz")
        softened, plain = (
            np.stack([nib.load(out / f"{stem}_probability_{n}.nii.gz").get_fdata() for n in CLASSES.values()])
            for out in found.values()
        )
        assert all(np.array_equal(np.asarray(nib.load(out / name).dataobj), labels) for out in found.values())
        powers = np.concatenate([1 - plain.sum(axis=0, keepdims=True), plain]).clip(0) ** (1 / content["temperature"])
        sure = plain.min(axis=0) > 0.01  # where the steps of 1/65535 do not matter
        np.testing.assert_allclose(softened[:, sure], (powers / powers.sum(axis=0))[1:, sure], atol=1e-3)
        every = np.concatenate([1 - softened.sum(axis=0, keepdims=True), softened])
        first, second = np.sort(every, axis=0)[:-3:-1]
        clear = first - second > 1e-3
        assert clear.mean() > 0.5
        np.testing.assert_array_equal(every.argmax(axis=0)[clear], labels[clear])


def test_training_leaves_logs_checkpoints_and_a_promoted_model(trained):
    assert (trained["model"]).read_bytes() == (trained["runs"] / "best.pt").read_bytes()
    settings = read_model(trained["model"])[1]
    assert settings["ResampleSlicesd.spacing"] == 5
    assert settings["class_names"] == ["background", *CLASSES]
    assert {path.name for path in trained["runs"].iterdir()} == {
        "best.pt",
        "checkpoints",
        "log.csv",
        "previews",
        "run.json",
        "tensorboard",
    }
    with (trained["runs"] / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"] and float(rows[1]["dice"]) > 0


def test_the_table_tells_how_far_each_input_is_from_the_training(trained):
    with (trained["out"] / "volumes.csv").open(newline="") as file:
        found = {row["case"]: float(row["unlike"]) for row in csv.DictReader(file)}
    assert found and all(0 < value < 1 for value in found.values())


@pytest.mark.slow
def test_weights_without_a_guard_get_that_of_their_training(trained, tmp_path):
    model = tmp_path / "model.pt"
    weights, _ = read_model(trained["model"])
    guard = weights._metadata.pop(GUARD)
    torch.save(weights, model)
    assert read_guard(model) is None
    guarding = monai_bundle(
        "run", "guarding", "--config_file", config_files("train.json", "guard.json"), "--num_workers", "0",
        "--spacing", "5", "--slice_size", "[96,96]", "--dataset_dir", str(trained["study"]), "--cache_dir",
        str(trained["cache"]), "--model_file", str(model), cwd=tmp_path, fresh=True,
    )  # fmt: skip
    assert guarding.returncode == 0, guarding.stdout + guarding.stderr
    again, settings = read_model(model)
    assert again._metadata[GUARD] == guard and settings == read_model(trained["model"])[1]
    assert all(torch.equal(again[name], value) for name, value in weights.items())


def test_each_input_has_a_picture(trained):
    for path in trained["out"].rglob("*.nii.gz"):
        picture = np.asarray(Image.open(str(path).replace(".nii.gz", "_overlay.png")))
        assert picture.std() > 10


def test_a_folder_of_everything(trained, tmp_path):
    """The good are segmented, the broken and the strange are named, and the exit code tells."""
    folder = tmp_path / "in"
    (case,) = {path.parent.parent.name for path in trained["inputs"].rglob("*.dcm")} - {"case_07"}
    shutil.copytree(trained["inputs"] / case / "ct", folder / "series")
    nameless = next((folder / "series").iterdir())
    shutil.copy(nameless, folder / "nameless")
    dataset = pydicom.dcmread(folder / "nameless")
    dataset.SeriesInstanceUID = pydicom.uid.generate_uid()
    dataset.save_as(folder / "nameless")
    volume = nib.load(next(trained["out"].rglob("*.nii.gz")))
    nib.save(nib.Nifti1Image(np.zeros(volume.shape, np.int16), volume.affine), folder / "volume.nii.gz")
    (folder / "lost.dcm").write_text("not an image")
    (folder / "broken.nii.gz").write_bytes(b"cut short")
    (folder / "empty").mkdir()
    run = monai_bundle(
        "run", "inferring", "--config_file", config_files("inference.json"), "--spacing", "5",
        "--dataset_dir", str(folder), "--output_dir", str(tmp_path / "out"), "--model_file", str(trained["model"]),
        cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 1 and "Traceback" not in run.stderr, run.stdout + run.stderr
    assert "3 of 6 inputs failed, the others were segmented" in run.stderr
    for name in ("broken: ", "empty: is an empty folder", "lost.dcm: is not DICOM"):
        assert name in run.stderr
    written = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    names = ("series", "nameless", "volume")
    expected = {f"{name}{suffix}" for name in names for suffix in (".nii.gz", "_overlay.png")}
    assert written == expected | {"volumes.csv"}
