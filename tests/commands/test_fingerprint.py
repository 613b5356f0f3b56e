# SPDX-License-Identifier: Apache-2.0
"""The program that measures a data set and proposes settings, as a user runs it."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from bundle.pyraseg.commands import config_files
from bundle.pyraseg.core import task_files
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.datalist import load_cases
from bundle.pyraseg.workflow import read_config
from bundle.pyraseg_tools.commands.fingerprint import main
from tests.helpers.ball_study import write_ball_study
from tests.helpers.commands import monai_bundle
from tests.helpers.dicom_files import item, write_series
from tests.helpers.warm import python

ROOT = Path(__file__).resolve().parents[2]
LUNGS, VESSELS = ([str(file) for file in task_files(ROOT / "configs", "train", task)] for task in ("lungs", "vessels"))
TRAIN = str(ROOT / "configs" / "train.json")
SLICES = ROOT / "benchmarks" / "hippocampus" / "slices.json"
HIPPOCAMPUS = [TRAIN, str(SLICES)]


@pytest.fixture
def study(tmp_path) -> Path:
    """Return 12 radiographs with a lung of 100 of 1600 pixels; one is constant, one has an empty mask."""
    random = np.random.default_rng(0)
    folder = tmp_path / "study"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for k in range(12):
        image = random.integers(100, 200, (40, 40), dtype=np.uint8)
        mask = np.zeros((40, 40), np.uint8)
        mask[10:20, 10:20] = 0 if k == 3 else 255
        image[mask > 0] //= 2
        Image.fromarray(image * (k != 5)).save(folder / "images" / f"p{k}.png")
        Image.fromarray(mask).save(folder / "masks" / f"p{k}.png")
    return folder


def fingerprint(study, out, *options, configs=LUNGS):
    main([*configs, "--output", str(out), "--dataset_dir", str(study), "--num_workers", "0", *options])
    return json.loads((out / "proposal.json").read_text())


def test_writes_a_report_a_table_pictures_and_an_overlay(study, tmp_path, capsys):
    proposal = fingerprint(study, tmp_path / "out", "--max-ratio", "5")
    assert proposal.keys() == {"windows", "slice_size", "loss#weight"}  # no spacing, no slices, no memory stated
    assert proposal["slice_size"] == [96, 96]
    assert proposal["loss#weight"] == [0.3333, 1.667]  # bounded, 1 : 5
    with (tmp_path / "out" / "cases.csv").open() as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert len(rows) == 12
    assert (rows["images/p0.png"]["size"], rows["images/p0.png"]["pixels_lung"]) == ("40 x 40", "100")
    assert "everywhere" in rows["images/p5.png"]["odd"]
    assert (rows["images/p3.png"]["pixels_lung"], rows["images/p3.png"]["odd"]) == ("0", "")
    report = (tmp_path / "out" / "report.md").read_text()
    assert "12 cases" in report and "1 have no label" in report
    assert "- `images/p5.png`" in report and "| `slice_size` | `[96, 96]` |" in report
    for name in ("histograms.png", "pairs.png"):
        picture = np.asarray(Image.open(tmp_path / "out" / name).convert("RGB"))
        assert picture.shape[1] > 1000 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    out = capsys.readouterr().out
    assert "no `batch_size`: state the memory" in out
    assert f"nothing is applied: the proposal is {tmp_path / 'out' / 'proposal.json'}" in out.splitlines()[-1]


def test_a_knob_that_the_config_does_not_use_is_not_proposed(study, tmp_path):
    photographs = tmp_path / "photographs"
    for name, other in (("images", "images"), ("masks", "masks_1stHO")):
        (photographs / other).mkdir(parents=True)
        for k in range(12):
            picture = Image.open(study / name / f"p{k}.png").convert("RGB" if name == "images" else "L")
            picture.save(photographs / other / f"{k:02}L.{'jpg' if name == 'images' else 'png'}")
    assert fingerprint(photographs, tmp_path / "out", configs=VESSELS).keys() == {"loss#weight"}
    assert "patches" in (tmp_path / "out" / "report.md").read_text()


def test_patients_are_not_named(tmp_path):
    folder = tmp_path / "study"
    cases = []
    for k in range(4):
        pixels = np.random.default_rng(k).integers(-50, 100, (3, 20, 24), dtype=np.int16)
        write_series(folder / str(k) / "ct", pixels, SeriesInstanceUID=f"1.2.{k}")
        label = np.zeros((24, 20, 3), np.uint8)
        label[5:9, 5:9, k % 3] = 1
        nib.save(nib.Nifti1Image(label, np.diag([-1.0, -1.0, 1.0, 1.0])), folder / str(k) / "label.nii.gz")
        cases.append({"image": f"{k}/ct", "label": f"{k}/label.nii.gz", "patient": f"Secret {k}"})
    (folder / "datalist.json").write_text(json.dumps({"training": cases[:3], "test": cases[3:]}))
    options = ("--class_names", "['background','organ']")
    proposal = fingerprint(folder, tmp_path / "out", *options, configs=(TRAIN,))
    assert proposal["spacing"] == pytest.approx(20 / 96, rel=0.01)  # enlarged to 96 pixels
    assert proposal["background_fraction"] == 0.2 and proposal["windows"][0]["width"] > 50
    for file in (tmp_path / "out").iterdir():
        assert b"secret" not in file.read_bytes().lower()


@pytest.mark.slow
@pytest.mark.parametrize(("weight", "unit"), [(70, "SUVbw"), (None, "BQML")])
def test_pet_is_measured_and_its_unit_named(tmp_path, weight, unit):
    """The default config is for CT; a fingerprint measures what there is, and proposes to say so."""
    folder = tmp_path / "study"
    injection = item(RadionuclideTotalDose=350e6)
    header = {"Modality": "PT", "Units": "BQML", "DecayCorrection": "ADMIN", "PatientWeight": weight}
    pixels = np.random.default_rng(0).integers(0, 5000, (3, 20, 24), dtype=np.uint16)
    write_series(folder / "pet", pixels, RadiopharmaceuticalInformationSequence=injection, **header)
    label = np.zeros((24, 20, 3), np.uint8)
    label[5:9, 5:9] = 1
    nib.save(nib.Nifti1Image(label, np.diag([-1.0, -1.0, 1.0, 1.0])), folder / "label.nii.gz")
    (folder / "datalist.json").write_text(json.dumps({"training": [{"image": "pet", "label": "label.nii.gz"}]}))
    options = ("--class_names", "['background','lesion']")
    proposal = fingerprint(folder, tmp_path / "out", *options, configs=(TRAIN,))
    assert proposal["modality"] == ["PT"] and "percentiles" in proposal["windows"][0]
    with (tmp_path / "out" / "cases.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["modality"], row["units"], row["units_by"]) == ("PT", unit, "DICOM header")
    assert unit in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class_name", "x"], "The nearest name is 'class_names'"),
        (["--memory_gb", "8"], "has no option --memory_gb"),
        (["--epochs"], "has no value"),
        (["--dataset_dir", "/nowhere"], "/nowhere does not exist"),
        (["--label_pattern", "none/{case}.png"], "none"),
        (["--class_names", "['background']", "--image_pattern", "masks/{case}.png"], "No training case"),
        (["--max-ratio", "0.5"], "at least 1"),
    ],
)
def test_refusals_leave_nothing_behind(study, tmp_path, options, message):
    if options[0] == "--class_names":
        for path in (study / "masks").iterdir():
            Image.fromarray(np.zeros((40, 40), np.uint8)).save(path)
    with pytest.raises((PyrasegError, RuntimeError)) as caught:
        fingerprint(study, tmp_path / "out", *options)
    causes, error = [], caught.value
    while error is not None:
        causes.append(str(error))
        error = error.__cause__
    assert any(message in text for text in causes), causes
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_existing_folder_or_a_missing_config_is_refused_plainly(study, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(PyrasegError, match="is there already"):
        fingerprint(study, tmp_path / "out")
    result = python("-m", "scripts.fingerprint", "none.json", "--output", str(tmp_path / "new"), cwd=ROOT)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "pyraseg: There is no config at none.json" in result.stderr


# --- slices or volumes ---


@pytest.mark.slow
def test_volumes_get_two_proposals_and_the_time_is_measured(tmp_path, capsys):
    folder = write_ball_study(tmp_path / "study")
    options = ("--class_names", "['background','ball']", "--device", "cpu", "--memory", "4", "--minutes", "20")
    first = fingerprint(folder, tmp_path / "out", *options, configs=[str(SLICES)])
    slices, volumes = (json.loads((tmp_path / "out" / f"{form}.json").read_text()) for form in ("slices", "volumes"))
    assert first == volumes
    assert volumes["spacing"] == [1, 1, 1] and volumes["patch_size"] == [24, 28, 20]
    assert slices["spacing"] == pytest.approx(24 / 96, rel=0.01) and "patch_size" not in slices
    for proposal in (slices, volumes):
        assert proposal["batch_size"] >= 2 and proposal["samples_per_epoch"] % proposal["batch_size"] == 0
        assert 10 <= proposal["epochs"] <= 40
    report = (tmp_path / "out" / "report.md").read_text()
    assert "Begin with **volumes**: 20 slices" in report
    assert report.index("### `volumes.json`") < report.index("### `slices.json`")
    assert "s a sample, measured" in report and "80% of 4 GB" in report
    out = capsys.readouterr().out
    assert f"pyraseg compare {tmp_path}/out/slices.json {tmp_path}/out/volumes.json --base {SLICES}" in out
    for program in ("train", "inference"):  # what is proposed is what both build
        suffix = "_inference" if program == "inference" else ""
        overlays = [SLICES.with_stem(f"slices{suffix}"), tmp_path / "out" / f"volumes{suffix}.json"]
        files, _ = config_files(overlays, program=program)
        assert f"volumes{suffix}.json" in [file.name for file in files[:-1]]
        network = read_config(files).get_parsed_content("network_def").eval()
        with torch.no_grad():
            assert network(torch.zeros(1, 1, 24, 28, 20)).shape == (1, 3, 24, 28, 20)


def test_thick_slices_are_trained_as_slices(tmp_path):
    folder = write_ball_study(tmp_path / "study", spacing=(1, 1, 6))
    options = ("--class_names", "['background','ball']")
    first = fingerprint(folder, tmp_path / "out", *options, configs=[str(SLICES)])
    assert first == json.loads((tmp_path / "out" / "slices.json").read_text())
    volumes = json.loads((tmp_path / "out" / "volumes.json").read_text())
    assert volumes["spacing"] == [1, 1, 6] and volumes["rotation"] == [0, 0, 15]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "Begin with **slices**: voxels are 6 times as long" in report and "no `epochs`" in report


def test_a_config_that_sees_volumes_already_gets_one_proposal(tmp_path):
    folder = write_ball_study(tmp_path / "study")
    options = ("--class_names", "['background','ball']")
    proposal = fingerprint(folder, tmp_path / "out", *options, configs=["hippocampus"])
    assert proposal["patch_size"] == [24, 28, 20] and "slice_size" not in proposal
    assert not (tmp_path / "out" / "slices.json").exists()


# --- real data ---


def independent_weights(paths, classes, read, max_ratio=10.0):
    """Count the files' own values, without a transform of ours, and invert the frequencies."""
    counts = sum(np.bincount(read(path).ravel(), minlength=classes) for path in paths)
    weights = np.minimum(1 / counts, max_ratio / counts.max())
    return (weights / weights.mean()).tolist()


@pytest.mark.slow
def test_chest_x_rays(real_data, tmp_path):
    folder = real_data / "chest_xray_lungs"
    proposal = fingerprint(folder, tmp_path / "out")
    patterns = {"image_pattern": "images/{case}.png", "label_pattern": "masks/{case}.png"}
    masks = [case["label"] for case in load_cases(folder, **patterns)["training"]]
    expected = independent_weights(masks, 2, lambda path: (np.asarray(Image.open(path)) == 255).astype(int))
    assert proposal["loss#weight"] == pytest.approx(expected, rel=1e-3)
    assert proposal["slice_size"] == [256, 256]
    assert proposal["windows"] == [{"percentiles": [1.0, 99.0]}]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "566 cases" in report and "- `images/CHNCXR_0603_1.png`" in report  # one lung collapsed


@pytest.mark.slow
def test_hippocampus(real_data, tmp_path):
    folder = real_data / "mr_hippocampus"
    volumes = fingerprint(folder, tmp_path / "out", configs=HIPPOCAMPUS)
    proposal = json.loads((tmp_path / "out" / "slices.json").read_text())
    assert (volumes["spacing"], volumes["patch_size"], volumes["channels"]) == (
        [1, 1, 1],
        [40, 56, 40],
        [16, 32, 64, 128],
    )
    labels = [case["label"] for case in load_cases(folder)["training"]]
    expected = independent_weights(labels, 3, lambda path: np.asarray(nib.load(path).dataobj).astype(int))
    assert proposal["loss#weight"] == pytest.approx(expected, rel=1e-3)
    assert proposal["slice_size"] == [96, 160] and proposal["spacing"] == pytest.approx(0.375, abs=0.02)
    assert proposal["background_fraction"] == 0.2


@pytest.mark.slow
def test_a_training_runs_with_the_proposal(real_data, tmp_path):
    folder = real_data / "mr_hippocampus"
    fingerprint(folder, tmp_path / "out", "--memory", "4", "--device", "cpu", configs=HIPPOCAMPUS)
    proposal = json.loads((tmp_path / "out" / "slices.json").read_text())
    assert 2 <= proposal["batch_size"] <= 32
    trained = monai_bundle(
        "run", "training", "--config_file", str([*HIPPOCAMPUS, str(tmp_path / "out" / "slices.json")]),
        "--dataset_dir", str(folder), "--output_dir", str(tmp_path / "runs"), "--cache_dir", str(tmp_path / "cache"),
        "--model_file", str(tmp_path / "model.pt"), "--epochs", "1", "--samples_per_epoch", "64", "--device", "cpu",
        cwd=tmp_path,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert (tmp_path / "model.pt").exists()
