# SPDX-License-Identifier: Apache-2.0
"""A cine made by code, from folders to a data list, a training of seconds, every phase, its SEGs and what it ejects.

The ventricle is an ellipsoid of known axes in each phase; what was found is read back by highdicom. A network that
finds it exactly, by a threshold, shows that volumes and ejection fraction are those of the formula; one that was
trained for seconds, that data list, training and inference belong together.
"""

import csv
import json
from math import pi
from pathlib import Path
from types import SimpleNamespace

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

from bundle.pyraseg.commands.datalist import main as make_list
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from tests.helpers.commands import config_files, monai_bundle
from tests.helpers.phased import STEP, trigger_times, write_enhanced_cine, write_phases
from tests.helpers.threshold_network import ThresholdNetwork

pytestmark = pytest.mark.slow

#: Half axes of the ventricle in mm (across, across, along), in each phase.
AXES = ((18.0, 18.0, 18.0), (15.0, 14.0, 17.0), (11.0, 11.0, 14.0), (13.0, 15.0, 15.0))
SIZE, PIXEL, PLACES = 48, 1.0, 8
MILLILITERS = [4 / 3 * pi * a * b * c / 1000 for a, b, c in AXES]
UNUSED = (
    *("encoder", "pretrained", "output_stride", "patch_stem", "pool_sizes", "decoder", "decoder_stride"),
    *("bottleneck", "dropout"),
)
VENTRICLE = {"type": ["87878005", "SCT", "Left ventricle"]}
THRESHOLD = {
    "_target_": "tests.helpers.threshold_network.ThresholdNetwork",
    "in_channels": 1,
    "unused": [f"@{name}" for name in UNUSED],
}
OPTIONS = {
    "class_names": ["background", "ventricle"],
    "modality": "MR",
    "body_part": None,
    "windows": [{"center": 275, "width": 600}],
    "spacing": 1.0,
    "context_slices": 0,
    "encoder": "resnet18",
    "decoder": "fpn",
    "pretrained": False,
}


def ellipsoids() -> np.ndarray:
    """Return where the ventricle is in each phase, (phases, places, rows, columns) uint8."""
    z, y, x = np.meshgrid(
        STEP * (np.arange(PLACES) - PLACES / 2 + 0.5), *(PIXEL * (np.arange(SIZE) - SIZE / 2 + 0.5),) * 2, indexing="ij"
    )
    return np.stack([(x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 <= 1 for a, b, c in AXES]).astype(np.uint8)


def images(seed: int) -> np.ndarray:
    """Return stored values: about 400 in the ventricle, 150 outside."""
    noise = np.random.default_rng(seed).normal(0, 15, (len(AXES), PLACES, SIZE, SIZE))
    return (150 + 250.0 * ellipsoids() + noise).astype(np.int16)


def infer(work: Path, out: Path, config: str, model: Path, phase: str) -> None:
    run = monai_bundle(
        "run", "inferring", "--config_file", str([config_files("inference.json"), str(work / config)]),
        "--model_file", str(model), "--dataset_dir", str(work / "in"), "--output_dir", str(out), "--phase", phase,
        "--ejection_fraction", "ventricle", "--outputs", "['labels','volumes','seg']", cwd=work,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Write a cine as single files and one as an enhanced object, and the configs."""
    work = tmp_path_factory.mktemp("cine")
    files = write_phases(work / "in" / "cine", trigger_times, pixels=images(9), name="new")
    write_enhanced_cine(work / "in" / "enhanced.dcm", images(9), name="enhanced")
    (work / "own.json").write_text(json.dumps(OPTIONS))
    codes = {**OPTIONS, "terminology": {"ventricle": VENTRICLE}}
    (work / "codes.json").write_text(json.dumps(codes))
    (work / "exact.json").write_text(json.dumps({**codes, "network_def": THRESHOLD}))
    return SimpleNamespace(work=work, files=files)


@pytest.fixture(scope="module")
def exact(inputs: SimpleNamespace) -> Path:
    """Segment every phase by a threshold; return the folder of the results."""
    torch.save(ThresholdNetwork().state_dict(), inputs.work / "threshold.pt")
    infer(inputs.work, inputs.work / "exact", "exact.json", inputs.work / "threshold.pt", "all")
    return inputs.work / "exact"


@pytest.fixture(scope="module")
def trained(inputs: SimpleNamespace) -> Path:
    """Train on end diastole and end systole of three cines, which are drawn; return the weights."""
    work = inputs.work
    for number in range(3):
        files = write_phases(work / "study" / f"c{number}", trigger_times, pixels=images(number), name=f"P{number}")
        for phase in (0, 2):
            sources = [pydicom.dcmread(files[phase, place]) for place in range(PLACES)]
            path = work / "study" / "seg" / f"{number}_{phase}.dcm"
            write_segmentation(path, ellipsoids()[phase], sources, [SegmentClass.from_codes("ventricle", VENTRICLE)])
    make_list([str(work / "study"), "--threshold", "1", "--shares", "0.34", "0.33", "0.33"])
    training = monai_bundle(
        "run", "training", "--config_file", str([config_files("train.json"), str(work / "own.json")]),
        "--num_workers", "0", "--model_file", str(work / "model.pt"), "--dataset_dir", str(work / "study"),
        "--cache_dir", str(work / "cache"), "--output_dir", str(work / "runs"), "--slice_size", "[48,48]",
        "--epochs", "1", "--samples_per_epoch", "16", "--val_interval", "1", "--batch_size", "8", cwd=work,
    )  # fmt: skip
    assert training.returncode == 0, training.stdout + training.stderr
    return work / "model.pt"


NAMES = [f"{series}_phase{number:02d}" for series in ("cine", "enhanced") for number in range(1, len(AXES) + 1)]


def masks(path: Path, uids: dict[tuple[str, int], int]) -> np.ndarray:
    """Return what a SEG holds, by highdicom, on the places of the image frames that it was derived from."""
    segmentation = hd.seg.segread(path)
    found = np.zeros((PLACES, SIZE, SIZE), np.uint8)
    pixels = segmentation.pixel_array.reshape(-1, SIZE, SIZE)
    for groups, mask in zip(segmentation.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        number = int(source.get("ReferencedFrameNumber") or 1)
        found[uids[source.ReferencedSOPInstanceUID, number]] |= mask.astype(np.uint8)
    return found


def sources(inputs: SimpleNamespace, series: str, phase: int) -> dict[tuple[str, int], int]:
    """Return the place of each image frame of a phase, by SOP Instance UID and frame number; no other is one of it."""
    if series == "enhanced":
        own = pydicom.dcmread(inputs.work / "in" / "enhanced.dcm").SOPInstanceUID
        return {(own, len(AXES) * place + len(AXES) - phase): place for place in range(PLACES)}
    files = [inputs.files[phase, place] for place in range(PLACES)]
    return {(pydicom.dcmread(file).SOPInstanceUID, 1): place for place, file in enumerate(files)}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_phase_has_a_seg_of_its_own_images(inputs, exact):
    assert sorted(path.name for path in exact.glob("*_seg.dcm")) == [f"{name}_seg.dcm" for name in NAMES]
    for name in NAMES:
        series, _, number = name.partition("_phase")
        found = masks(exact / f"{name}_seg.dcm", sources(inputs, series, int(number) - 1))
        np.testing.assert_array_equal(found, ellipsoids()[int(number) - 1])


def test_volumes_and_what_the_beat_ejects_are_those_of_the_formula(exact):
    table = {row["case"]: row for row in rows(exact / "volumes.csv")}
    assert sorted(table) == NAMES
    for name, row in table.items():
        phase = int(name[-2:])
        assert (row["phase"], int(row["voxels"])) == (str(phase), ellipsoids()[phase - 1].sum())
        assert float(row["volume_ml"]) == pytest.approx(MILLILITERS[phase - 1], rel=0.03)  # voxels are no ellipsoid
    beats = rows(exact / "ejection_fraction.csv")
    assert [row["case"] for row in beats] == ["cine", "enhanced"]
    for row in beats:
        assert (row["end_diastolic_phase"], row["end_systolic_phase"], row["phases"]) == ("1", "3", "4")
        assert float(row["end_diastolic_volume_ml"]) == float(table[f"{row['case']}_phase01"]["volume_ml"])
        assert float(row["end_systolic_volume_ml"]) == float(table[f"{row['case']}_phase03"]["volume_ml"])
        assert float(row["ejection_fraction"]) == pytest.approx(1 - MILLILITERS[2] / MILLILITERS[0], abs=0.01)


def test_one_phase_has_the_same_result_under_the_same_name(inputs, exact):
    infer(inputs.work, inputs.work / "one", "exact.json", inputs.work / "threshold.pt", "3")
    assert sorted(path.name for path in (inputs.work / "one").glob("*_seg.dcm")) == [
        "cine_phase03_seg.dcm", "enhanced_phase03_seg.dcm",
    ]  # fmt: skip
    for series in ("cine", "enhanced"):
        name, own = f"{series}_phase03_seg.dcm", sources(inputs, series, 2)
        np.testing.assert_array_equal(masks(inputs.work / "one" / name, own), masks(exact / name, own))


def test_from_a_data_list_to_the_phases_of_a_new_cine(inputs, trained):
    listed = json.loads((inputs.work / "study" / "datalist.json").read_text())
    items = [item for part in ("training", "validation", "test") for item in listed[part]]
    assert sorted((item["image"], item["phase"], item["label"]) for item in items) == [
        (f"c{number}", f"{phase + 1}", f"seg/{number}_{phase}.dcm") for number in range(3) for phase in (0, 2)
    ]
    infer(inputs.work, inputs.work / "out", "codes.json", trained, "all")
    table = {row["case"]: int(row["voxels"]) for row in rows(inputs.work / "out" / "volumes.csv")}
    for name in NAMES:
        series, _, number = name.partition("_phase")
        found = masks(inputs.work / "out" / f"{name}_seg.dcm", sources(inputs, series, int(number) - 1))
        written = np.asarray(nib.load(inputs.work / "out" / f"{name}.nii.gz").dataobj)
        np.testing.assert_array_equal(found, written.T)
        assert table[name] == found.sum() == table[f"cine_phase{number}"]  # the pixels of both series are the same
