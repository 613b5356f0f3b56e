# SPDX-License-Identifier: Apache-2.0
"""The phantom study as files: read by pydicom and nibabel, so that the writer's own code cannot hide a mistake."""

import hashlib
import json
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, JPEG2000Lossless

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.geometry import Geometry
from bundle.pyraseg.labels.class_table import ClassTable
from bundle.pyraseg.labels.reading import open_label, read_dicom_label
from bundle.pyraseg.labels.references import ImageGrid
from bundle.pyraseg_tools.datasets.phantom import study
from bundle.pyraseg_tools.datasets.phantom.cases import PLANS, phantom_case
from bundle.pyraseg_tools.datasets.phantom.study import write_phantom_study

SPLITS = ("training", "validation", "test")
LIVER, LESION, SPLEEN, KIDNEY = 1, 2, 3, 4


def items(study: Path) -> list[dict]:
    content = json.loads((study / "datalist.json").read_text())
    return [{**item, "split": split} for split in SPLITS for item in content[split]]


def slices(folder: Path) -> list[pydicom.Dataset]:
    datasets = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    return [dataset for dataset in datasets if "LOCALIZER" not in dataset.ImageType]


def read_stack(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return HU (N, rows, columns) and the 4x4 matrix from (column, row, slice) to LPS mm, from headers alone."""
    datasets = slices(folder)
    if datasets[0].SOPClassUID == EnhancedCTImageStorage:
        (enhanced,) = datasets
        shared = enhanced.SharedFunctionalGroupsSequence[0]
        orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        spacing = shared.PixelMeasuresSequence[0].PixelSpacing
        frames = enhanced.PerFrameFunctionalGroupsSequence
        positions = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames]
        rescale = [frame.PixelValueTransformationSequence[0] for frame in frames]
        pixels = enhanced.pixel_array
    else:
        orientation, spacing = datasets[0].ImageOrientationPatient, datasets[0].PixelSpacing
        positions = [dataset.ImagePositionPatient for dataset in datasets]
        rescale, pixels = datasets, np.stack([dataset.pixel_array for dataset in datasets])
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    positions = np.array(positions, float)
    order = np.argsort(positions @ np.cross(row, column))
    hu = np.stack([pixels[k] * float(rescale[k].RescaleSlope) + float(rescale[k].RescaleIntercept) for k in order])
    positions = positions[order]
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    assert np.allclose(np.diff(positions, axis=0), step, atol=2e-3)
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([row * float(spacing[1]), column * float(spacing[0]), step, positions[0]])
    return hu, matrix


def label_points(study: Path, item: dict, value: int) -> np.ndarray:
    """Return the LPS mm of every voxel with this label, (n, 3)."""
    path = study / item["label"]
    if path.suffix == ".gz":
        image = nib.load(path)
        indices = np.argwhere(np.asarray(image.dataobj) == value)
        return nib.affines.apply_affine(image.affine, indices) * [-1, -1, 1]
    points = [np.empty((0, 3))]
    for frame in open_label(path).frames():
        if frame.segment == value:
            r, c = np.nonzero(frame.mask)
            row_cosine, column_cosine = np.reshape(frame.plane.orientation, (2, 3))
            points.append(frame.plane.position + np.outer(r * frame.plane.pixel_spacing[0], column_cosine)
                          + np.outer(c * frame.plane.pixel_spacing[1], row_cosine))  # fmt: skip
    return np.concatenate(points)


def voxels_at(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return (slice, row, column) of the voxels whose centers these points are."""
    exact = nib.affines.apply_affine(np.linalg.inv(matrix), points)
    assert np.abs(exact - np.rint(exact)).max(initial=0) < 0.02
    return np.rint(exact).astype(int)[:, ::-1]


def test_the_split_is_by_patient_and_every_file_is_there(phantom_study: Path) -> None:
    everything = items(phantom_study)
    assert Counter(item["split"] for item in everything) == {"training": 14, "validation": 5, "test": 5}
    assert len({item["patient"] for item in everything}) == 24
    for item in everything:
        (patient,) = {str(dataset.PatientID) for dataset in slices(phantom_study / item["image"])}
        assert patient == item["patient"]
        assert (phantom_study / item["label"]).is_file()
    suffixes = Counter(Path(item["label"]).suffix for item in everything)
    assert suffixes == {".dcm": 12, ".gz": 12}


def test_writing_takes_under_30_seconds_on_two_processors_and_little_disk(phantom_build: tuple[Path, float]) -> None:
    folder, seconds = phantom_build  # of processor time, which other work on the machine does not change much
    assert 0 < seconds < 60
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 60e6


def test_the_manifest_holds_the_hash_of_every_file(phantom_study: Path) -> None:
    manifest = json.loads((phantom_study / "manifest.json").read_text())
    files = {file.relative_to(phantom_study).as_posix() for file in phantom_study.rglob("*") if file.is_file()}
    assert set(manifest["files"]) == files - {"manifest.json"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((phantom_study / name).read_bytes()).hexdigest() == digest


@pytest.mark.slow
def test_bytes_depend_on_the_seed_alone(tmp_path: Path) -> None:
    manifests = []
    for name, seed, workers in (("a", 5, 1), ("b", 5, 3), ("c", 6, 2)):
        write_phantom_study(tmp_path / name, seed=seed, patients=10, size=36, workers=workers)
        manifests.append((tmp_path / name / "manifest.json").read_bytes())
    assert manifests[0] == manifests[1]
    first, third = (set(json.loads(manifests[k])["files"].values()) for k in (0, 2))
    assert not first & third - {json.loads(manifests[0])["files"]["datalist.json"]}


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(PyrasegError, match="not empty"):
        write_phantom_study(tmp_path / "mine", patients=3, size=36)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("bundle.pyraseg_tools.datasets.phantom.study._write_nifti", full)
    with pytest.raises(OSError, match="no space"):
        write_phantom_study(tmp_path / "study", patients=3, size=36)
    assert not list(tmp_path.iterdir())


def traits_of(folder: Path) -> set[str]:
    """Recognize the traits of a series from its headers."""
    everything = [pydicom.dcmread(file, stop_before_pixels=True) for file in sorted(folder.iterdir())]
    found = {"scout"} if any("LOCALIZER" in dataset.ImageType for dataset in everything) else set()
    everything = [dataset for dataset in everything if "LOCALIZER" not in dataset.ImageType]
    first = everything[0]
    if first.SOPClassUID == EnhancedCTImageStorage:
        return found | {"multiframe"}
    assert {dataset.SOPClassUID for dataset in everything} == {CTImageStorage}
    everything.sort(key=lambda dataset: dataset.InstanceNumber)
    row, column = (np.array(first.ImageOrientationPatient[k : k + 3], float) for k in (0, 3))
    normal = np.cross(row, column)
    steps = [np.subtract(b.ImagePositionPatient, a.ImagePositionPatient) for a, b in pairwise(everything)]
    if steps[0] @ normal < 0:
        found.add("reversed")
    if np.linalg.norm(np.cross(steps[0], normal)) > 0.05 * np.linalg.norm(steps[0]):
        found.add("tilted")
    elif abs(normal[2]) < 0.999:
        found.add("oblique")
    if first.Rows != first.Columns:
        found.add("wide")
    if "PixelPaddingValue" in first:
        found.add("circle")
    if len({(dataset.RescaleSlope, dataset.RescaleIntercept) for dataset in everything}) > 1:
        found.add("rescale")
    if first["WindowCenter"].VM > 1:
        found.add("windows")
    if first.file_meta.TransferSyntaxUID == JPEG2000Lossless:
        found.add("jpeg2000")
    return found


def test_every_trait_is_in_the_headers_and_in_the_training_part(phantom_study: Path) -> None:
    found = [(item["split"], traits_of(phantom_study / item["image"])) for item in items(phantom_study)]
    assert [traits for _, traits in found] == [set(plan.traits) for plan in PLANS]
    by_split = {split: set().union(*(traits for part, traits in found if part == split)) for split in SPLITS}
    assert by_split["training"] == {
        "reversed", "oblique", "tilted", "wide", "circle", "rescale", "windows", "multiframe", "jpeg2000", "scout"
    }  # fmt: skip
    assert by_split["validation"] >= {"tilted", "oblique"} <= by_split["test"]


def test_file_names_do_not_tell_the_order(phantom_study: Path) -> None:
    numbers = [dataset.InstanceNumber for dataset in slices(phantom_study / "case_01" / "ct")]
    assert sorted(numbers) == list(range(1, len(numbers) + 1)) != numbers


def test_matrix_sizes_spacings_and_slice_counts_vary(phantom_study: Path) -> None:
    stacks = [read_stack(phantom_study / item["image"]) for item in items(phantom_study)]
    assert len({hu.shape[1:] for hu, _ in stacks}) >= 4
    assert all(20 <= len(hu) <= 32 for hu, _ in stacks)
    spacings = [round(float(np.linalg.norm(matrix[:3, 0])), 3) for _, matrix in stacks]
    assert len(set(spacings)) > 12
    assert 1.9 < min(spacings) < max(spacings) < 3.3


@pytest.mark.slow
def test_classes_are_absent_as_planned_in_every_part(phantom_study: Path) -> None:
    absent = Counter()
    for item, plan in zip(items(phantom_study), PLANS, strict=True):
        present = {value for value in (LIVER, LESION, SPLEEN, KIDNEY) if len(label_points(phantom_study, item, value))}
        gone = plan.absent
        expected = {LIVER}
        expected |= set() if gone.lesion else {LESION}
        expected |= set() if gone.spleen else {SPLEEN}
        expected |= set() if gone.left_kidney and gone.right_kidney else {KIDNEY}
        assert present == expected
        absent.update((item["split"], value) for value in {LESION, SPLEEN, KIDNEY} - present)
    assert all(absent[split, LESION] and absent[split, SPLEEN] for split in SPLITS)
    assert absent["validation", KIDNEY]


def test_labels_lie_on_the_organs_in_patient_coordinates(phantom_study: Path) -> None:
    """The HU inside the liver are alike; with left and right swapped they are not, so no mirrored label can pass."""
    for item in items(phantom_study):
        hu, matrix = read_stack(phantom_study / item["image"])
        at = voxels_at(matrix, label_points(phantom_study, item, LIVER))
        inside = hu[tuple(at.T)]
        swapped = hu[at[:, 0], at[:, 1], hu.shape[2] - 1 - at[:, 2]]
        assert 15 < np.median(inside) < 125
        # The spread about the median of the inner 90 % leaves out vessels, padding and the blurred edge.
        low, high = np.percentile(inside, (5, 95))
        assert high - low < 90
        assert np.subtract(*np.percentile(swapped, (95, 5))) > 120


@pytest.mark.slow
def test_files_hold_the_case_that_is_made_in_memory(phantom_study: Path) -> None:
    for index, item in enumerate(items(phantom_study)):
        if index not in (0, 2, 4, 6, 8, 10, 13, 17, 20):
            continue
        case = phantom_case(2024, index)
        hu, _ = read_stack(phantom_study / item["image"])
        expected = case.hu[::-1] if "reversed" in case.plan.traits else case.hu
        inside = np.ones(hu.shape, bool) if case.outside is None else np.broadcast_to(~case.outside, hu.shape)
        assert np.abs(hu - expected)[inside].max() <= 0.63  # half a step of the coarsest rescale slope, 1.25
        if case.plan.label == "seg":
            grid = ImageGrid(
                hu.shape, Geometry(case.positions, case.row_cosine, case.column_cosine, case.pixel_spacing)
            )
            labels = read_dicom_label(
                phantom_study / item["label"], grid, ClassTable(["background", "liver", "lesion", "spleen", "kidney"])
            )
            assert np.array_equal(labels, case.labels)


def test_some_nifti_labels_are_left_handed_and_one_is_sheared(phantom_study: Path) -> None:
    affines = {
        item["patient"]: nib.load(phantom_study / item["label"]).affine[:3, :3]
        for item in items(phantom_study) if item["label"].endswith(".gz")
    }  # fmt: skip
    assert sum(np.linalg.det(affine) < 0 for affine in affines.values()) >= 3
    assert sum(np.linalg.det(affine) > 0 for affine in affines.values()) >= 3
    columns = affines["phantom-21"] / np.linalg.norm(affines["phantom-21"], axis=0)
    assert abs(columns[:, 1] @ columns[:, 2]) > 0.1


@pytest.mark.slow
def test_lesions_stand_out_from_the_liver_after_slight_smoothing(phantom_study: Path) -> None:
    from scipy.ndimage import binary_erosion, gaussian_filter

    diameters = []
    for index in (0, 2, 4, 9, 21):
        case = phantom_case(2024, index)
        smooth = gaussian_filter(case.hu.astype(float), (0, 1, 1))
        disc = np.ones((1, 3, 3), bool)
        lesion = smooth[binary_erosion(case.labels == LESION, disc)]
        liver = smooth[binary_erosion(case.labels == LIVER, disc, iterations=2)]
        spread = 0.74 * np.subtract(*np.percentile(liver, (75, 25)))  # a standard deviation without the vessels
        assert 14 < abs(np.median(lesion) - np.median(liver)) < 50
        assert abs(np.median(lesion) - np.median(liver)) > 2 * spread
        volume = (case.labels == LESION).sum() * np.prod(case.pixel_spacing) * np.linalg.norm(case.slice_step)
        diameters.append((6 * volume / np.pi) ** (1 / 3))
    assert min(diameters) > 12


def test_the_default_data_set_is_written_on_first_use_and_said_so(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(study, "write_phantom_study", partial(write_phantom_study, patients=3, size=48))
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO"):
        folder = study.phantom_study("phantom")
    assert f"writing the phantom CT study to {tmp_path.resolve() / 'phantom'}" in caplog.text
    listed = json.loads((Path(folder) / "datalist.json").read_text())
    assert all((Path(folder) / case[key]).exists() for case in listed["training"] for key in ("image", "label"))
    caplog.clear()
    assert study.phantom_study("phantom") == folder
    assert not caplog.text
