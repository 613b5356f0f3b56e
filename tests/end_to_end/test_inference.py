# SPDX-License-Identifier: Apache-2.0
"""A folder of everything through the real command: every good input becomes every file, every bad one is named."""

import csv
import gzip
import re
from pathlib import Path
from types import SimpleNamespace

import highdicom as hd
import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from tests.helpers.commands import config_files, monai_bundle
from tests.helpers.dicom_files import uid, write_enhanced, write_series

SHAPE = (3, 24, 20)  # slices, rows, columns
OUTPUTS = "['labels','overlay','volumes','seg','rtstruct','mesh','capture']"
SUFFIXES = (".nii.gz", "_overlay.png", "_seg.dcm", "_rtstruct.dcm", "_capture.dcm")
NAMES_AND_IDS = [
    "PatientID",
    "IssuerOfPatientID",
    "PatientAddress",
    "OtherPatientNames",
    "PatientMotherBirthName",
    "PatientComments",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "RequestingPhysician",
    "InstitutionName",
    "InstitutionAddress",
    "StationName",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "DeviceSerialNumber",
    "RequestedProcedureID",
    "ImageComments",
]
DATES = [
    "PatientBirthDate",
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "ContentDate",
    "InstanceCreationDate",
    "PerformedProcedureStepStartDate",
]
MARKER, YEAR = "ZEBRA", "1953"


def planted(case: int) -> dict[str, object]:
    """Return attributes that name a patient, by words and years that occur nowhere else."""
    names = {keyword: f"{MARKER}{index}" for index, keyword in enumerate(NAMES_AND_IDS)}
    dates = {keyword: f"{YEAR}01{index + 10}" for index, keyword in enumerate(DATES)}
    malformed = {"PatientBirthDate": f"{YEAR}-6-17", "StudyTime": f"{MARKER}TIME", "PatientName": f"{MARKER}NAME"}
    well_formed = {"PatientName": f"{MARKER}^{MARKER}", "StudyTime": "120000", "AcquisitionDateTime": f"{YEAR}0101"}
    return {**names, **dates, **(malformed if case % 2 else well_formed), "PatientSex": "O", "SeriesNumber": 1}


def fill(folder: Path) -> set[str]:
    """Write 45 good inputs of five formats and 5 broken ones; return the names of the good DICOM ones."""
    random = np.random.default_rng(0)
    volumes = [random.integers(-200, 300, SHAPE).astype(np.int16) for _ in range(45)]
    dicom = set()
    with pydicom.config.disable_value_validation():
        for case in range(12):
            own = {**planted(case), "SeriesInstanceUID": uid("series", case), "StudyInstanceUID": uid("study", case)}
            write_series(folder / "series" / f"s{case:02d}", volumes[case], spacing=(2.0, 1.5), slice_step=3.0, **own)
            dicom.add(f"series/s{case:02d}")
        for case in range(12, 15):
            own = {**planted(case), "SeriesInstanceUID": uid("series", case), "StudyInstanceUID": uid("study", case)}
            positions = np.arange(3)[:, None] * [0, 0, 3.0]
            write_enhanced(folder / f"frames{case}", volumes[case], positions, spacing=(2.0, 1.5), **own)
            dicom.add(f"frames{case}")
        twice = volumes[0][[0, 0]]
        write_series(folder / "bad" / "twice", twice, slice_step=[0, 0, 0], SeriesInstanceUID=uid("bad"), **planted(0))
    for case in range(15, 30):
        nib.save(nib.Nifti1Image(volumes[case].T, np.diag([-1.5, -2, 3, 1])), folder / f"case{case}.nii.gz")
    for case in range(30, 45):
        image = itk.image_from_array(volumes[case])
        image.SetSpacing([1.5, 2.0, 3.0])
        itk.imwrite(image, str(folder / f"case{case}.{('nrrd', 'mha', 'mhd')[case % 3]}"))
    (folder / "bad" / "cut.nii.gz").write_bytes((folder / "case15.nii.gz").read_bytes()[:200])
    (folder / "bad" / "lost.dcm").write_text("not an image")
    (folder / "bad" / "empty").mkdir()
    Image.new("RGB", (30, 20)).save(folder / "bad" / "photograph.jpg")
    return dicom


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    work = tmp_path_factory.mktemp("everything")
    (work / "in").mkdir()
    dicom = fill(work / "in")
    parser = ConfigParser()
    parser.read_config(config_files("inference.json"))
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), work / "model.pt")  # untrained
    # The results lie below the inputs, where a second run must not find them.
    run = [
        "run", "inferring", "--config_file", config_files("inference.json"), "--dataset_dir", str(work / "in"),
        "--output_dir", str(work / "in" / "out"), "--model_file", str(work / "model.pt"), "--outputs", OUTPUTS,
        "--tta_flips", "[[0]]", "--roi_size", "[32,32]",
    ]  # fmt: skip
    first = monai_bundle(*run, cwd=work)
    files = {path.relative_to(work / "in" / "out").as_posix(): path for path in (work / "in" / "out").rglob("*")}
    files = {name: path for name, path in files.items() if path.is_file()}
    return SimpleNamespace(work=work, run=run, first=first, files=files, dicom=dicom)


def test_45_results_and_5_failures_by_name(done):
    assert done.first.returncode == 1 and "Traceback" not in done.first.stderr, done.first.stderr
    told = done.first.stderr.split("pyraseg: ")[-1]
    assert told.startswith("5 of 50 inputs failed, the others were segmented:")
    for name, reason in {
        "bad/cut": "is incomplete: its compressed content ends too early",
        "bad/empty": "is an empty folder",
        "bad/lost.dcm": "is not DICOM",
        "bad/photograph": "needs a model of photographs",
        "bad/twice": "with equal pixels and nothing",
    }.items():
        (line,) = [line for line in told.splitlines() if line.strip().startswith(f"{name}: ")]
        assert reason in line
    assert "45 of 50 inputs segmented, 5 failed" in done.first.stdout + done.first.stderr
    assert "cases/min" in done.first.stdout + done.first.stderr


def test_every_good_input_has_every_file_and_no_other_has_any(done):
    found = {suffix: {name.removesuffix(suffix) for name in done.files if name.endswith(suffix)} for suffix in SUFFIXES}
    assert len(found[".nii.gz"]) == 45 and found[".nii.gz"] == found["_overlay.png"]
    assert found["_seg.dcm"] == found["_rtstruct.dcm"] == found["_capture.dcm"] == done.dicom
    others = set(done.files) - {f"{name}{suffix}" for suffix, names in found.items() for name in names}
    assert {name for name in others if not name.endswith(".stl")} == {"volumes.csv"}  # nothing half-written
    with done.files["volumes.csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == found[".nii.gz"] and len(rows) == 45 * 4
    for row in rows:
        source = done.work / "in" / row["case"]
        if row["case"] in done.dicom:
            header = pydicom.dcmread(next(source.iterdir()) if source.is_dir() else source, stop_before_pixels=True)
            assert (row["series_uid"], row["modality"]) == (header.SeriesInstanceUID, header.Modality)
            assert row["series_number"] == str(header.get("SeriesNumber") or "")
            assert row["series_description"] == re.sub(rf"{MARKER}\w*", "***", header.get("SeriesDescription", ""))
        else:
            assert {row[name] for name in ("series_uid", "series_number", "series_description", "modality")} == {""}
        voxels = (np.asarray(nib.load(done.files[f"{row['case']}.nii.gz"]).dataobj) == int(row["value"])).sum()
        assert int(row["voxels"]) == voxels
        assert float(row["volume_ml"]) == pytest.approx(voxels * 9 / 1000, abs=1e-4)
        assert (f"{row['case']}_{row['class']}.stl" in done.files) == (voxels > 0)


def test_the_segmentation_is_the_label_map(done):
    for name in sorted(done.dicom)[::5]:
        segmentation = hd.seg.segread(done.files[f"{name}_seg.dcm"])
        source = done.work / "in" / name
        files = sorted(source.iterdir()) if source.is_dir() else [source]
        options = {"combine_segments": True, "ignore_spatial_locations": True, "assert_missing_frames_are_empty": True}
        uids = [pydicom.dcmread(file).SOPInstanceUID for file in files]
        if len(files) == 1:
            pixels = segmentation.get_pixels_by_source_frame(uids[0], [1, 2, 3], **options)
        else:
            pixels = segmentation.get_pixels_by_source_instance(uids, **options)
        labels = np.asarray(nib.load(done.files[f"{name}.nii.gz"]).dataobj)
        np.testing.assert_array_equal(pixels, labels.T)
        assert MARKER in str(segmentation.PatientName)  # it goes back to the patient's record


def test_nobody_is_named_outside_the_dicom_results(done):
    said = done.first.stdout + done.first.stderr
    assert MARKER not in said and YEAR not in said
    for name, path in done.files.items():
        content = path.read_bytes()
        content = gzip.decompress(content) if name.endswith(".gz") else content
        if not name.endswith(".dcm"):
            assert MARKER.encode() not in content, name
            assert YEAR.encode() not in content or name.endswith(".stl"), name  # coordinates may hold any four bytes
        assert MARKER not in name and YEAR not in name


@pytest.mark.slow
def test_a_second_run_finds_the_same_inputs(done):
    again = monai_bundle(*done.run, "--outputs", "labels", cwd=done.work)
    assert "5 of 50 inputs failed" in again.stderr
