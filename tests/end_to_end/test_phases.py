# SPDX-License-Identifier: Apache-2.0
"""A cine made by code, from folders to a data list, a training of seconds, every phase, its SEGs and what it ejects.

The ventricle is an ellipsoid of known axes in each phase; what was found is read back by highdicom.
"""

import csv
import json
from math import pi
from pathlib import Path
from types import SimpleNamespace

import highdicom as hd
import numpy as np
import pydicom
import pytest

from bundle.pyraseg.commands.datalist import main as make_list
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from tests.helpers.commands import config_files, monai_bundle
from tests.helpers.phased import STEP, trigger_times, write_enhanced_cine, write_phases

#: Half axes of the ventricle in mm (across, across, along), in each phase.
AXES = ((18.0, 18.0, 18.0), (15.0, 14.0, 17.0), (11.0, 11.0, 14.0), (13.0, 15.0, 15.0))
SIZE, PIXEL, PLACES = 48, 1.0, 8
MILLILITERS = [4 / 3 * pi * a * b * c / 1000 for a, b, c in AXES]
VENTRICLE = {"type": ["87878005", "SCT", "Left ventricle"]}
OPTIONS = {
    "class_names": ["background", "ventricle"],
    "modality": "MR",
    "body_part": None,
    "windows": [{"center": 300, "width": 600}],
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
    return (150 + 250 * ellipsoids() + noise).astype(np.int16)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    work = tmp_path_factory.mktemp("cine")
    for number in range(3):  # end diastole and end systole are drawn
        files = write_phases(work / "study" / f"c{number}", trigger_times, pixels=images(number), name=f"P{number}")
        for phase in (0, 2):
            sources = [pydicom.dcmread(files[phase, place]) for place in range(PLACES)]
            path = work / "study" / "seg" / f"{number}_{phase}.dcm"
            write_segmentation(path, ellipsoids()[phase], sources, [SegmentClass.from_codes("ventricle", VENTRICLE)])
    make_list([str(work / "study"), "--threshold", "1", "--shares", "0.34", "0.33", "0.33"])
    (work / "own.json").write_text(json.dumps(OPTIONS))
    (work / "codes.json").write_text(json.dumps({**OPTIONS, "terminology": {"ventricle": VENTRICLE}}))
    training = monai_bundle(
        "run", "training", "--config_file", str([config_files("train.json"), str(work / "own.json")]),
        "--num_workers", "0", "--model_file", str(work / "model.pt"),
        "--dataset_dir", str(work / "study"), "--cache_dir", str(work / "cache"), "--output_dir", str(work / "runs"),
        "--slice_size", "[48,48]", "--epochs", "3", "--samples_per_epoch", "64", "--val_interval", "3",
        "--batch_size", "8", cwd=work,
    )  # fmt: skip
    assert training.returncode == 0, training.stdout + training.stderr
    files = write_phases(work / "in" / "cine", trigger_times, pixels=images(9), name="new")
    write_enhanced_cine(work / "in" / "enhanced.dcm", images(9), name="enhanced")
    run = monai_bundle(
        "run", "inferring", "--config_file", str([config_files("inference.json"), str(work / "codes.json")]),
        "--model_file", str(work / "model.pt"),
        "--dataset_dir", str(work / "in"), "--output_dir", str(work / "out"), "--phase", "all",
        "--ejection_fraction", "ventricle", "--outputs", "['labels','volumes','seg']", cwd=work,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return SimpleNamespace(work=work, files=files, out=work / "out")


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


def sources(done: SimpleNamespace, series: str, phase: int) -> dict[tuple[str, int], int]:
    """Return the place of each image frame of a phase, by SOP Instance UID and frame number; no other is one of it."""
    if series == "enhanced":
        own = pydicom.dcmread(done.work / "in" / "enhanced.dcm").SOPInstanceUID
        return {(own, len(AXES) * place + len(AXES) - phase): place for place in range(PLACES)}
    files = [done.files[phase, place] for place in range(PLACES)]
    return {(pydicom.dcmread(file).SOPInstanceUID, 1): place for place, file in enumerate(files)}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_data_list_pairs_each_label_with_its_phase(done):
    listed = json.loads((done.work / "study" / "datalist.json").read_text())
    items = [item for part in ("training", "validation", "test") for item in listed[part]]
    assert sorted((item["image"], item["phase"]) for item in items) == [
        (f"c{number}", phase) for number in range(3) for phase in "13"
    ]
    for item in items:
        assert item["label"] == f"seg/{item['image'][1]}_{int(item['phase']) - 1}.dcm"


def test_every_phase_has_a_seg_that_refers_to_its_own_images(done):
    assert sorted(path.name for path in done.out.glob("*_seg.dcm")) == [f"{name}_seg.dcm" for name in NAMES]
    for name in NAMES:
        series, _, number = name.partition("_phase")
        phase = int(number) - 1
        found = masks(done.out / f"{name}_seg.dcm", sources(done, series, phase))
        dice = 2 * (found & ellipsoids()[phase]).sum() / (found.sum() + ellipsoids()[phase].sum())
        assert dice > 0.93, (name, dice)


def test_volumes_and_what_the_beat_ejects(done):
    """Tables agree with the SEGs to the voxel, and with the formula of the ellipsoid as far as the network does."""
    table = {row["case"]: row for row in rows(done.out / "volumes.csv")}
    assert sorted(table) == NAMES
    for name, row in table.items():
        series, _, number = name.partition("_phase")
        voxels = masks(done.out / f"{name}_seg.dcm", sources(done, series, int(number) - 1)).sum()
        assert (row["phase"], int(row["voxels"])) == (str(int(number)), voxels)
        assert float(row["volume_ml"]) == pytest.approx(voxels * STEP * PIXEL**2 / 1000, abs=1e-3)
        assert float(row["volume_ml"]) == pytest.approx(MILLILITERS[int(number) - 1], rel=0.12)
    for row in rows(done.out / "ejection_fraction.csv"):
        own = [float(table[f"{row['case']}_phase{number:02d}"]["volume_ml"]) for number in range(1, 5)]
        assert (row["end_diastolic_phase"], row["end_systolic_phase"], row["phases"]) == ("1", "3", "4")
        assert float(row["end_diastolic_volume_ml"]) == max(own) and float(row["end_systolic_volume_ml"]) == min(own)
        assert float(row["ejection_fraction"]) == pytest.approx((max(own) - min(own)) / max(own), abs=1e-4)
        assert float(row["ejection_fraction"]) == pytest.approx(1 - MILLILITERS[2] / MILLILITERS[0], abs=0.05)


def test_one_phase_has_the_same_result_under_the_same_name(done, tmp_path):
    run = monai_bundle(
        "run", "inferring", "--config_file",
        str([config_files("inference.json"), str(done.work / "codes.json")]), "--model_file",
        str(done.work / "model.pt"), "--dataset_dir", str(done.work / "in"), "--output_dir", str(tmp_path / "out"),
        "--phase", "3", "--outputs", "['seg']", cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cine_phase03_seg.dcm", "enhanced_phase03_seg.dcm",
    ]  # fmt: skip
    for series in ("cine", "enhanced"):
        name, own = f"{series}_phase03_seg.dcm", sources(done, series, 2)
        np.testing.assert_array_equal(masks(tmp_path / "out" / name, own), masks(done.out / name, own))
