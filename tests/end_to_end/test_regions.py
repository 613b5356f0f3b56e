# SPDX-License-Identifier: Apache-2.0
"""Overlapping regions from a folder to a model and back: segments by highdicom, figures by NumPy, both runtimes."""

import csv
import json
import shutil
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from monai.bundle import ConfigParser

from bundle.pyraseg.commands.export import main as export
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.runtime.__main__ import main as segment
from bundle.pyraseg.training import read_model
from bundle.pyraseg_tools.datasets.phantom import write_phantom_study
from tests.helpers.commands import ROOT, config_files, monai_bundle

pytestmark = pytest.mark.slow  # a training each

CLASSES = ["background", "liver", "lesion", "spleen", "kidney"]
REGIONS = {
    "whole liver": ["liver", "lesion"],
    "tumor": ["lesion"],
    "organs": ["liver", "lesion", "spleen", "kidney"],
}
TERMINOLOGY = {
    "whole liver": {"type": ["10200004", "SCT", "Liver"]},
    "tumor": {"type": ["52988006", "SCT", "Lesion"]},
    "organs": {"type": ["113343008", "SCT", "Organ"]},
}
FILES = ["whole_liver", "tumor", "organs"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Train for seconds, evaluate and infer on the test part of a small study."""
    work = tmp_path_factory.mktemp("regions")
    places = {name: work / name for name in ("study", "runs", "scores", "out", "inputs", "configs")}
    places["model"] = work / "models" / "model.pt"
    write_phantom_study(places["study"], patients=6, size=64)
    places["configs"].mkdir()
    own = {"train": {"regions": REGIONS}, "inference": {"regions": REGIONS, "terminology": TERMINOLOGY}}
    for name, content in own.items():
        places[name] = places["configs"] / f"{name}_regions.json"
        places[name].write_text(json.dumps(content))
    common = ["--num_workers", "0", "--spacing", "5", "--slice_size", "[96,96]", "--dataset_dir", str(places["study"])]
    common += ["--cache_dir", str(work / "cache"), "--model_file", str(places["model"])]
    training = monai_bundle(
        "run", "training", "--config_file", str([str(ROOT / "configs" / "train.json"), str(places["train"])]), *common,
        "--output_dir", str(places["runs"]), "--epochs", "2", "--samples_per_epoch", "64", "--val_interval", "2",
        cwd=work,
    )  # fmt: skip
    assert training.returncode == 0, training.stdout + training.stderr
    evaluating = monai_bundle(
        "run", "evaluating", "--config_file",
        str([str(ROOT / "configs" / "train.json"), str(places["train"]), str(ROOT / "configs" / "evaluate.json")]),
        *common, "--output_dir", str(places["scores"]), cwd=work,
    )  # fmt: skip
    assert evaluating.returncode == 0, evaluating.stdout + evaluating.stderr
    (case,) = ConfigParser.load_config_file(places["study"] / "datalist.json")["test"]
    shutil.copytree(places["study"] / case["image"], places["inputs"] / "case")
    places["label"] = places["study"] / case["label"]
    inferring = monai_bundle(
        "run", "inferring", "--config_file", str([str(ROOT / "configs" / "inference.json"), str(places["inference"])]),
        "--spacing", "5", "--dataset_dir", str(places["inputs"]), "--output_dir", str(places["out"]), "--model_file",
        str(places["model"]), "--outputs", "['labels','overlay','volumes','seg','rtstruct','mesh']", cwd=work,
    )  # fmt: skip
    assert inferring.returncode == 0, inferring.stdout + inferring.stderr
    return places


def masks_of(places: dict[str, Path], folder: Path) -> dict[str, np.ndarray]:
    """Return where each region is by its file, (columns, rows, slices)."""
    return {name: np.asarray(nib.load(folder / f"case_{name}.nii.gz").dataobj) > 0 for name in FILES}


def test_segments_overlap_and_are_the_masks(trained):
    masks = masks_of(trained, trained["out"])
    assert (masks["whole_liver"] & masks["organs"]).any()
    seg = hd.seg.segread(trained["out"] / "case_seg.dcm")
    assert seg.SegmentsOverlap == "YES"
    assert [seg.get_segment_description(n).segment_label for n in seg.segment_numbers] == list(REGIONS)
    headers = [pydicom.dcmread(path) for path in (trained["inputs"] / "case").iterdir()]
    normal = np.cross(*np.reshape(headers[0].ImageOrientationPatient, (2, 3)).astype(float))
    headers.sort(key=lambda header: float(normal @ np.array(header.ImagePositionPatient, float)))
    uids = [header.SOPInstanceUID for header in headers]
    found = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    for place, mask in enumerate(masks.values()):
        assert np.array_equal(found[..., place] > 0, mask.T)


def test_figures_are_those_of_the_files(trained):
    masks = masks_of(trained, trained["out"])
    truth = np.asarray(nib.load(trained["label"]).dataobj)
    affines = nib.load(trained["label"]).affine, nib.load(trained["out"] / "case_tumor.nii.gz").affine
    flips = [axis for axis in range(3) if affines[0][:, axis] @ affines[1][:, axis] < 0]
    truth = np.flip(truth, flips)
    rows = list(csv.DictReader((trained["scores"] / "scores.csv").open()))
    assert [row["class"] for row in rows] == list(REGIONS)
    for row, classes, mask in zip(rows, REGIONS.values(), masks.values(), strict=True):
        true = np.isin(truth, [CLASSES.index(name) for name in classes])
        assert int(row["truth_voxels"]) == true.sum() > 0
        assert int(row["predicted_voxels"]) == mask.sum()
        assert float(row["dice"]) == pytest.approx(2 * (true & mask).sum() / (true.sum() + mask.sum()), abs=1e-4)
    summary = json.loads((trained["scores"] / "summary.json").read_text())
    assert list(summary["classes"]) == list(REGIONS) and "calibration" in summary
    (pictures,) = json.loads((trained["scores"] / "pictures.json").read_text())["cases"]
    assert {number for view in pictures["views"] for number in view["truth"]} == {"1", "2", "3"}
    assert (trained["scores"] / "report.html").is_file()


def test_the_runtime_gives_the_same(trained, tmp_path):
    shutil.copy(trained["model"], tmp_path / "model.pt")
    configs = [str(ROOT / "configs" / "inference.json"), str(trained["inference"])]
    export([*configs, "--model-file", str(tmp_path / "model.pt"), "--spacing", "5"])
    assert segment([str(tmp_path / "model.onnx"), str(trained["inputs"]), str(tmp_path), "--format", "nifti"]) == 0
    ours, theirs = masks_of(trained, trained["out"]), masks_of(trained, tmp_path)
    for name in FILES:
        assert np.mean(ours[name] == theirs[name]) > 0.9999


def test_regions_belong_to_the_weights(trained):
    _, settings = read_model(trained["model"])
    assert settings["regions"] == [[name, classes] for name, classes in REGIONS.items()]
    other = dict(reversed(REGIONS.items()))  # the same ones in another order are other channels
    run = monai_bundle(
        "run", "inferring", "--config_file", config_files("inference.json"), "--spacing", "5", "--regions", str(other),
        "--dataset_dir", str(trained["inputs"]), "--output_dir", str(trained["out"].with_name("other")), "--model_file",
        str(trained["model"]), cwd=trained["out"],
    )  # fmt: skip
    assert run.returncode != 0 and "was trained with other settings" in run.stdout + run.stderr


def test_a_region_of_no_class_is_refused(trained):
    run = monai_bundle(
        "run", "inferring", "--config_file", config_files("inference.json"), "--regions", "{'tumor': ['lesions']}",
        "--dataset_dir", str(trained["inputs"]), "--output_dir", str(trained["out"].with_name("other")), "--model_file",
        str(trained["model"]), cwd=trained["out"],
    )  # fmt: skip
    assert run.returncode != 0
    assert "'lesions', which is no class of ['liver', 'lesion', 'spleen', 'kidney']" in run.stdout + run.stderr
    assert PyrasegError.__name__ not in run.stderr
