# SPDX-License-Identifier: Apache-2.0
"""Whatever a user can mend stops the real command with one plain message, before anything is written."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from pydicom.uid import JPEGLSLossless

from tests.helpers.commands import monai_bundle
from tests.helpers.dicom_files import write_series

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHAPE = (3, 16, 20)  # slices, rows, columns
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Return a function that runs a command in a foreign directory and returns the message with which it refuses."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    outputs = {name: tmp_path / "out" / name for name in ("output_dir", "cache_dir", "model_file")}

    def refused(run_id: str = "training", *configs: str, fresh: bool = False, **options: object) -> str:
        files = str([str(CONFIGS / name) for name in configs or ["train.json"]])
        command = ["run", run_id, "--config_file", files]
        given = {name: path for name, path in outputs.items() if name != "cache_dir" or run_id != "inferring"}
        for name, value in {**given, **options}.items():
            command += [f"--{name}", str(value)]
        done = monai_bundle(*command, cwd=elsewhere, fresh=fresh)
        assert done.returncode == 1
        assert "Traceback" not in done.stdout + done.stderr
        before, marker, message = done.stderr.partition("pyraseg: ")
        assert marker and len(before.splitlines()) <= 1, done.stderr  # MONAI's notice about trust comes before
        assert not (tmp_path / "out").exists()
        assert list(elsewhere.iterdir()) == []
        assert "Secret" not in message and "SECRET" not in message  # the patient of the test files
        return message.strip()

    return refused


def write_label(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values.astype(np.uint8).transpose(2, 1, 0), LPS_TO_RAS), path)
    return path


def write_study(root: Path, **parts: list[str]) -> Path:
    """Write the list of a study whose cases are `<name>/ct` and `<name>.nii.gz`."""
    items = {
        part: [{"image": f"{name}/ct", "label": f"{name}.nii.gz", "patient": name} for name in names]
        for part, names in parts.items()
    }
    (root / "datalist.json").write_text(json.dumps(items))
    return root


def write_case(root: Path, name: str, *, label: np.ndarray | None = None) -> list[Path]:
    write_label(root / f"{name}.nii.gz", np.ones(SHAPE) if label is None else label)
    return write_series(root / name / "ct", np.zeros(SHAPE, np.int16))


# --- options ---


def test_a_mistyped_option(refused):
    message = refused(epoch=3, fresh=True)
    assert "'epoch'" in message and "The nearest name is 'epochs'" in message and len(message.splitlines()) == 1


def test_a_mistyped_argument_of_a_component(refused):
    message = refused(**{"train#trainer#max_epoch": 3})
    assert "train#trainer: SupervisedTrainer has no argument 'max_epoch'. The nearest name is 'max_epochs'" in message


# --- folders ---


def test_a_folder_that_is_not_there(refused, tmp_path):
    message = refused(dataset_dir=tmp_path / "none")
    assert message.startswith(f"The data set folder {tmp_path / 'none'} does not exist. Give the folder of a data set")
    assert all(word in message for word in ("--dataset_dir", "pyraseg download", "pyraseg draw-photographs"))
    assert not (tmp_path / "none").exists()  # no phantom where the user named a folder


def test_an_empty_folder(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    message = refused(dataset_dir=tmp_path / "empty")
    assert f"The data set folder {tmp_path / 'empty'} is empty." in message


def test_no_matching_pairs(refused, tmp_path):
    write_label(tmp_path / "data" / "images" / "a.nii.gz", np.zeros(SHAPE))
    write_label(tmp_path / "data" / "labels" / "b.nii.gz", np.zeros(SHAPE))
    message = refused(dataset_dir=tmp_path / "data")
    assert "1 images match 'images/{case}', 1 labels match 'labels/{case}', and no name is in both" in message


def test_a_folder_of_results_that_is_a_file(refused, tmp_path):
    write_case(tmp_path / "data", "fine")
    study = write_study(tmp_path / "data", training=["fine"], validation=["fine"])
    (tmp_path / "taken").write_text("kept")
    message = refused(dataset_dir=study, output_dir=tmp_path / "taken" / "run")
    assert f"but {tmp_path / 'taken'} is a file. Give another." in message


# --- cases ---


def test_labels_that_do_not_belong_to_their_images(refused, tmp_path):
    root = tmp_path / "data"
    write_case(root, "fine")
    write_case(root, "unequal", label=np.zeros((3, 16, 16)))
    write_case(root, "undeclared", label=np.full(SHAPE, 9))
    message = refused(dataset_dir=write_study(root, training=["fine"], validation=["unequal", "undeclared"]))
    first, second, third = message.splitlines()
    assert first == "2 of 2 cases cannot be used:"
    assert f"{root / 'unequal.nii.gz'} has 16 x 16 x 3" in second and "20 x 16 x 3" in second
    assert f"{root / 'undeclared.nii.gz'} holds the values 9" in third and "'kidney'" in third


def test_dicom_series_that_are_no_volumes(refused, tmp_path):
    root = tmp_path / "data"
    broken = write_broken_series(root)
    for name in broken:
        write_label(root / f"{name}.nii.gz", np.zeros(SHAPE))
    write_case(root, "fine")
    message = refused(dataset_dir=write_study(root, training=list(broken), validation=["fine"]))
    first, *others = message.splitlines()
    assert first == f"{len(broken)} of {len(broken)} training cases cannot be used:"
    for line, (name, (what, file)) in zip(others, broken.items(), strict=True):
        assert what in line and file in line, name


def write_broken_series(root: Path) -> dict[str, tuple[str, str]]:
    """Write a series for each reason to refuse one; return the reason and the file that the message names."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 4000, SHAPE, dtype=np.int16)

    write_series(root / "duplicate" / "ct", pixels)
    write_series(root / "duplicate" / "ct", pixels[:1], names=["copy.dcm"])

    write_series(root / "unplaced" / "ct", pixels, per_slice=lambda k: {"ImagePositionPatient": None} if k == 1 else {})

    write_series(root / "mixed" / "ct", pixels)
    write_series(root / "mixed" / "ct", pixels[:1, :8], origin=(0, 0, 9), names=["small.dcm"])

    for phase in (1, 2):
        names = [f"phase_{phase}_{k}.dcm" for k in range(3)]
        write_series(root / "phases" / "ct", pixels, names=names, AcquisitionNumber=phase)

    write_series(root / "empty" / "ct", pixels, per_slice=lambda k: {"PixelData": None} if k == 2 else {})

    path = write_series(root / "undecodable" / "ct", pixels, syntax=JPEGLSLossless)[2]
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xd8\xff")  # of the JPEG-LS stream
    content[start : start + 60] = bytes(60)
    path.write_bytes(content)

    return {
        "duplicate": ("with equal pixels and nothing that tells them apart: stored twice?", "copy.dcm"),
        "unplaced": ("1 of 3 slices lack ImagePositionPatient", "slice_001.dcm"),
        "mixed": ("mixes image sizes", "8x20 (1 of 4, small.dcm)"),
        "phases": (
            "AcquisitionNumber: 1 (3), 2 (3). Read one of them with --select AcquisitionNumber=1",
            "phase_1_0.dcm",
        ),
        "empty": ("no pixel data", str(root / "empty" / "ct" / "slice_002.dcm")),
        "undecodable": ("cannot be decoded", str(root / "undecodable" / "ct" / "slice_002.dcm")),
    }


# --- models ---


def test_no_model_to_infer_with(refused, tmp_path):
    write_series(tmp_path / "ct", np.zeros(SHAPE, np.int16))
    message = refused("inferring", "inference.json", dataset_dir=tmp_path / "ct")
    assert f"There is no trained model at {tmp_path / 'out' / 'model_file'}. Train one first, " in message


def test_a_case_that_cannot_be_evaluated(refused, tmp_path):
    root = tmp_path / "data"
    write_case(root, "fine")
    write_case(root, "undeclared", label=np.full(SHAPE, 9))
    config = ConfigParser.load_config_file(CONFIGS / "inference.json")
    network = {**config, "bundle_root": str(tmp_path), "device": "cpu"}
    torch.save(ConfigParser(network).get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    study = write_study(root, training=["fine"], test=["undeclared"])
    message = refused("evaluating", "train.json", "evaluate.json", dataset_dir=study, model_file=tmp_path / "model.pt")
    assert f"1 of 1 cases cannot be used:\n  The label {root / 'undeclared.nii.gz'} holds the values 9" in message
