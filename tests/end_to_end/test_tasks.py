# SPDX-License-Identifier: Apache-2.0
"""Every task with real data: trained for a moment on a handful of cases, evaluated, and applied to them."""

import csv
import shutil
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from tests.helpers.commands import monai_bundle, task_config

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Task:
    """A task's data below the folder of real data, what makes a run short, and how the cases are split."""

    folder: str
    cases: int
    options: tuple[str, ...]
    inference_options: tuple[str, ...]
    split: str
    classes: tuple[str, ...]
    other_input: str | None = None


#: Volumes in the place of those that nobody has here.
VOLUMES = Task(
    "mr_hippocampus",
    10,
    ("--slice_size", "[64,64]", "--class_names", "['background','one','other']"),
    ("--class_names", "['background','one','other']"),
    " (no patients are named): 7 training, 1 validation, 2 test",
    ("one", "other"),
)
TASKS = {
    "lungs": Task(
        "chest_xray_lungs",
        10,
        ("--slice_size", "[96,96]"),
        ("--slice_size", "[96,96]"),
        " (no patients are named): 7 training, 1 validation, 2 test",
        ("lung",),
        "dicom_robustness/RG3_J2KR.dcm",
    ),
    "hippocampus": Task(
        "mr_hippocampus",
        10,
        ("--patch_size", "[24,32,24]", "--channels", "[4,8,16]"),
        ("--patch_size", "[24,32,24]", "--channels", "[4,8,16]"),
        " (no patients are named): 7 training, 1 validation, 2 test",
        ("anterior", "posterior"),
    ),
    "vessels": Task(
        "retina_vessels",
        20,
        ("--photograph_size", "[256,256]", "--slice_size", "[96,96]"),
        ("--photograph_size", "[256,256]", "--slice_size", "[96,96]"),
        " of 10 patients: 14 training, 2 validation, 4 test",
        ("vessel",),
    ),
    # There are no data of these two: that they run is all that is asked of them here.
    "lung_ct": VOLUMES,
    "spleen": VOLUMES,
    "nerves": Task(
        "ultrasound_nerves",
        10,
        ("--slice_size", "[96,96]"),
        ("--slice_size", "[96,96]"),
        " (no patients are named): 7 training, 1 validation, 2 test",
        ("nerve", "vessel"),
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_trains_evaluates_and_segments(name, real_data, tmp_path):
    task = TASKS[name]
    study, out = tmp_path / "study", tmp_path / "out"
    for source in sorted(path for path in (real_data / task.folder).iterdir() if path.is_dir()):
        (study / source.name).mkdir(parents=True)
        for path in sorted(source.iterdir())[: task.cases]:
            shutil.copy(path, study / source.name)
    common = ("--dataset_dir", str(study), "--model_file", str(tmp_path / "model.pt"), "--num_workers", "0")

    trained = monai_bundle(
        "run", "training", "--config_file", task_config("train", name), "--epochs", "2",
        "--samples_per_epoch", "32", "--batch_size", "8", "--cache_dir", str(tmp_path / "cache"),
        "--output_dir", str(tmp_path / "runs"), *common, *task.options, cwd=tmp_path,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert f"Cases{task.split}" in trained.stdout
    assert ("Untested" in trained.stdout) == (name in ("lung_ct", "spleen"))

    evaluated = monai_bundle(
        "run", "evaluating", "--config_file", task_config("evaluate", name),
        "--batch_size", "8", "--output_dir", str(tmp_path / "scores"), *common, *task.options, cwd=tmp_path,
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    rows = list(csv.DictReader((tmp_path / "scores" / "scores.csv").open()))
    assert [row["class"] for row in rows] == [*task.classes] * (task.cases // 5)
    assert all(int(row["truth_voxels"]) > 0 for row in rows)

    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for path in sorted((study / "images").iterdir())[:2]:
        shutil.copy(path, inputs)
    if task.other_input:
        shutil.copy(real_data / task.other_input, inputs)
    inferred = monai_bundle(
        "run", "inferring", "--config_file", task_config("inference", name), "--dataset_dir",
        str(inputs), "--output_dir", str(out), "--model_file", str(tmp_path / "model.pt"), *task.inference_options,
        cwd=tmp_path,
    )  # fmt: skip
    assert inferred.returncode == 0, inferred.stdout + inferred.stderr
    for path in inputs.iterdir():
        stem = path.name.partition(".")[0]
        assert Image.open(out / f"{stem}_overlay.png").width > 256
        if path.suffix == ".gz":
            image, labels = nib.load(path), nib.load(out / f"{stem}.nii.gz")
            assert labels.shape == image.shape and np.allclose(labels.affine, image.affine)
            values = np.asarray(labels.dataobj)
        else:
            pixels = dcmread(path).pixel_array if path.suffix == ".dcm" else np.asarray(Image.open(path))
            values = np.asarray(Image.open(out / f"{stem}.png"))
            assert values.shape == pixels.shape[:2]
        assert set(np.unique(values)) <= set(range(len(task.classes) + 1))
