# SPDX-License-Identifier: Apache-2.0
"""Structured reports, as dcmqi, highdicom, dciodvfy and a count of the segmentation's voxels see them."""

import csv
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import itk
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from pydicom.sr.codedict import codes
from pydicom.uid import MRImageStorage

from bundle.pyraseg.inference.prediction import Prediction, SavePredictions
from bundle.pyraseg.inference.tally import Tally
from bundle.pyraseg.inference.writers.dicom_objects import Algorithm
from bundle.pyraseg.inference.writers.report import ReportWriter
from bundle.pyraseg.inference.writers.volumes import VolumeTable
from bundle.pyraseg.labels import ImageValues
from tests.helpers.dicom_files import AXIAL, PATIENT, item, write_enhanced, write_series
from tests.helpers.segmented_series import NAMES, TURN, Case, complaints, letters, make_case, segmentation_writer

ORIGIN = np.array([-31.5, 42.25, 100.75])
ALONG = {
    "CT": np.outer(range(4), (0, 0, 3)),
    "thick slices that overlap": np.outer(range(4), (0, 0, 2.5)),
    "rounded places": np.array([[0, 0, 0], [0, 0, 3.0001], [0, 0, 5.9998], [0, 0, 9.0]]),
    "MR": np.outer(range(4), (0, 0, 3)) @ TURN.T,
    "tilted": np.outer(range(4), (0, 1.1, 3)),
    "uneven": np.outer((0, 3, 6, 10.5), (0, 0, 1)),
    "uneven and tilted": np.outer((0, 1, 2, 3.5), (0, 1.1, 3)),
    "a slice is missing": np.outer((0, 1, 2, 4), (0, 0, 3)),
    "multi-frame": np.outer(range(4), (0, 0, 3)),
    "multi-frame, uneven and tilted": np.outer((0, 1, 2, 3.5), (0, 1.1, 3)),
}
WIDTHS = {  # mm that each slice stands for, along the normal
    **dict.fromkeys(ALONG, [3.0] * 4),
    "thick slices that overlap": [2.5] * 4,
    "uneven": [3, 3, 3.75, 4.5],
    "uneven and tilted": [3, 3, 3.75, 4.5],
    "multi-frame, uneven and tilted": [3, 3, 3.75, 4.5],
}


@pytest.fixture(scope="module", params=list(ALONG))
def series(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Case]:
    """Return a series by its name, whose values are 10 times the labels, and 1 more in its last slice."""
    folder, name = tmp_path_factory.mktemp("series"), request.param
    labels, places = letters(), ALONG[name] + ORIGIN
    values = 10 * labels.astype(np.int16)
    values[3] += 1
    options = {"spacing": (0.9, 0.7), "orientation": (*TURN[:, 0], *TURN[:, 1]) if name == "MR" else AXIAL, **PATIENT}
    if name.startswith("multi-frame"):
        shared = {"PixelValueTransformationSequence": item(RescaleSlope=1, RescaleIntercept=0, RescaleType="HU")}
        write_enhanced(folder / "in" / "all.dcm", values, places, shared=shared, InstanceNumber=1, **options)
    else:
        if name == "MR":
            options |= {"Modality": "MR", "SOPClassUID": MRImageStorage}
        thickness = 5 if name == "thick slices that overlap" else 3
        write_series(folder / "in", values, SliceThickness=thickness, **options,
                     per_slice=lambda k: {"ImagePositionPatient": places[k].tolist()})  # fmt: skip
    return name, make_case(folder / "in", lambda number: labels[number], folder)


@pytest.fixture(scope="module")
def written(series: tuple[str, Case], algorithm: Algorithm) -> tuple[Path, Path]:
    """Return the report and the segmentation that it refers to, which is written with it."""
    (path,) = ReportWriter(segmentation=segmentation_writer(algorithm))(series[1].prediction)
    return path, path.with_name("case_seg.dcm")


def by_dcmqi(path: Path) -> dict[int, dict]:
    """Return what `tid1500reader` reads of each segment, by its number, its values by quantity and derivation."""
    return {group["ReferencedSegment"]: group for group in groups_by_dcmqi(path)}


def groups_by_dcmqi(path: Path) -> list[dict]:
    """Return the same of each group that refers to a segment."""
    out = path.with_suffix(".json")
    command = ["tid1500reader", "--inputDICOM", path, "--outputMetadata", out]
    subprocess.run(command, check=True, capture_output=True)
    groups = [one for one in json.loads(out.read_text())["Measurements"] if "ReferencedSegment" in one]
    for group in groups:
        group["values"] = {
            (one["quantity"]["CodeValue"], one.get("derivationModifier", {}).get("CodeMeaning", "")): (
                float(one["value"]), one["units"]["CodeValue"],
            )
            for one in group["measurementItems"]
        }  # fmt: skip
    return groups


def counted(path: Path) -> dict[int, float]:
    """Return the volume of each segment, mm³: voxels times the size that its frames state, by pydicom alone."""
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    volumes: dict[int, float] = {}
    for group, mask in zip(dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array, strict=True):
        (measures,) = group.get("PixelMeasuresSequence") or shared.PixelMeasuresSequence
        voxel = float(np.prod(np.array(measures.PixelSpacing, float))) * float(measures.SliceThickness)
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        volumes[number] = volumes.get(number, 0) + float(mask.sum()) * voxel
    return volumes


def counted_by_dcmqi(path: Path, folder: Path) -> dict[int, float]:
    """Return the same of the images that dcmqi makes of the segments, by ITK."""
    command = ["segimage2itkimage", "--inputDICOM", path, "--outputDirectory", folder, "-t", "nrrd"]
    subprocess.run(command, check=True, capture_output=True)
    images = {int(file.stem): itk.imread(file) for file in folder.glob("*.nrrd")}
    return {
        number: np.count_nonzero(itk.array_view_from_image(image)) * float(np.prod(np.asarray(image.GetSpacing())))
        for number, image in images.items()
    }


def test_volumes_in_report_table_and_segmentation_agree(
    series: tuple[str, Case], written: tuple[Path, Path], tmp_path: Path
) -> None:
    (name, case), (report, segmentation) = series, written
    reported = {number: group["values"]["118565006", ""] for number, group in by_dcmqi(report).items()}
    assert set(reported) == {1, 3} and {unit for _, unit in reported.values()} == {"mm3"}
    counts = {value: [np.count_nonzero(plane == value) for plane in letters()] for value in (1, 3)}
    (table,) = VolumeTable(output_dir=tmp_path, class_names=NAMES)(case.prediction)
    with table.open(newline="") as file:
        rows = {int(row["value"]): float(row["volume_ml"]) for row in csv.DictReader(file)}
    even = "tilted" not in name and "uneven" not in name
    others = [counted(segmentation), *([counted_by_dcmqi(segmentation, tmp_path)] if even else [])]
    for value, (volume, _) in reported.items():
        rounded = 1e-4 if name == "rounded places" else 1e-6
        assert volume == pytest.approx(np.dot(counts[value], WIDTHS[name]) * 0.9 * 0.7, rel=rounded)
        assert rows[value] * 1000 == pytest.approx(volume, rel=1e-6)
        for other in others:
            assert other[value] == pytest.approx(volume, rel=1e-6)


def test_what_the_report_says(series: tuple[str, Case], written: tuple[Path, Path]) -> None:
    (name, case), (report, segmentation) = series, written
    assert complaints(report) == [] and complaints(segmentation) == []
    groups, header = by_dcmqi(report), pydicom.dcmread(segmentation, stop_before_pixels=True)
    source = pydicom.dcmread(case.prediction.source_files[0], stop_before_pixels=True)
    intensity, unit = ("110852", "1") if name == "MR" else ("112031", "[hnsf'U]")
    for number, group in groups.items():
        segment = header.SegmentSequence[number - 1]
        assert group["segmentationSOPInstanceUID"] == header.SOPInstanceUID
        assert group["SourceSeriesForImageSegmentation"] == source.SeriesInstanceUID
        assert (group["TrackingUniqueIdentifier"], group["TrackingIdentifier"]) == (
            segment.TrackingUID, segment.TrackingID,
        )  # fmt: skip
        assert group["Finding"]["CodeValue"] == segment.SegmentedPropertyTypeCodeSequence[0].CodeValue
        made = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert group["measurementAlgorithmIdentification"] == {
            "AlgorithmName": made.AlgorithmName, "AlgorithmVersion": made.AlgorithmVersion,
        }  # fmt: skip
        assert made.AlgorithmVersion.endswith("weights 9a129038d9a0")
        voxels = np.concatenate([10 * number + (key == 3) * np.ones(np.count_nonzero(plane == number))
                                 for key, plane in enumerate(letters())])  # fmt: skip
        assert group["values"][intensity, "Mean"] == (pytest.approx(voxels.mean()), unit)
        assert group["values"][intensity, "Standard Deviation"] == (pytest.approx(voxels.std()), unit)
        assert {key for key, _ in group["values"]} == {"118565006", "103339001", "L0JK", intensity, "COMPONENTS"}
        assert group["values"]["L0JK", ""][0] >= group["values"]["103339001", ""][0] > 0
    block = max(np.hypot(22 * 0.9, 15 * 0.7), np.hypot(21 * 0.9, 16 * 0.7))  # 22 rows, 16 columns
    assert groups[3]["values"]["103339001", ""][0] == pytest.approx(block)
    assert groups[3]["values"]["COMPONENTS", ""][0] == (2 if name == "a slice is missing" else 1)


def test_highdicom_reads_it(series: tuple[str, Case], written: tuple[Path, Path]) -> None:
    (_, case), (path, segmentation) = series, written
    report, header = hd.sr.srread(path), pydicom.dcmread(segmentation, stop_before_pixels=True)
    groups = report.content.get_volumetric_roi_measurement_groups(finding_type=codes.SCT.Spleen)
    (group,) = groups
    assert group.referenced_segment.referenced_sop_instance_uid == header.SOPInstanceUID
    source = pydicom.dcmread(case.prediction.source_files[0], stop_before_pixels=True)
    assert group.referenced_segment.source_series_for_segmentation.value == source.SeriesInstanceUID
    (volume,) = group.get_measurements(codes.SCT.Volume)
    assert (volume.unit, volume.method) == (codes.UCUM.CubicMillimeter, codes.DCM.SumOfSegmentedVoxelMethodForVolume)
    images = {uid for uid, _ in case.frames}
    assert {uid for _, _, uid, _ in report.get_evidence()} == images | {header.SOPInstanceUID}
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE", "UNVERIFIED", "PRELIMINARY",
    )  # fmt: skip
    assert report.StudyInstanceUID == header.StudyInstanceUID


@pytest.mark.parametrize(
    ("modality", "units", "quantity", "unit"),
    [
        ("CT", "HU", "112031", "[hnsf'U]"),
        ("PT", "SUVbw", "126401", "g/ml{SUVbw}"),
        ("PT", "BQML", "110821", "Bq/ml"),
        ("MR", "", "110852", "1"),
        ("US", "", "PIXEL_VALUE", "1"),
    ],
)
def test_units_are_those_of_the_modality(modality: str, units: str, quantity: str, unit: str) -> None:
    assert [code.value for code in ImageValues(modality, units).quantity] == [quantity, unit]


@pytest.fixture
def small(tmp_path: Path) -> Case:
    labels = letters()[:3, :40, :40]
    write_series(tmp_path / "in", labels.astype(np.int16), SliceThickness=1, **PATIENT)
    return make_case(tmp_path / "in", lambda number: labels[number], tmp_path)


def test_uncertainty_and_side(small: Case, algorithm: Algorithm) -> None:
    labels = torch.where(small.prediction.labels == 1, 2, 0).to(torch.uint8)  # the lesion, which has a side
    prediction = replace(small.prediction, labels=labels, uncertainty=(None, 0.125, 0.5, None))
    (path,) = ReportWriter(segmentation=segmentation_writer(algorithm))(prediction)
    assert complaints(path) == []
    groups = by_dcmqi(path)
    assert list(groups) == [2] and groups[2]["values"]["UNCERTAINTY", ""] == (0.125, "1")
    (group,) = hd.sr.srread(path).content.get_volumetric_roi_measurement_groups()
    (site,) = group.finding_sites
    assert (site.value, site.laterality) == (codes.SCT.Liver, codes.SCT.Right)


def test_nothing_found_is_reported(small: Case, algorithm: Algorithm) -> None:
    prediction = replace(small.prediction, labels=torch.zeros_like(small.prediction.labels))
    (path,) = ReportWriter(segmentation=segmentation_writer(algorithm))(prediction)
    assert complaints(path) == []
    found = by_dcmqi(path)
    assert list(found) == [1, 2, 3, 4]
    assert all(group["values"]["118565006", ""] == (0, "mm3") for group in found.values())
    assert all(group["values"]["COMPONENTS", ""][0] == 0 for group in found.values())


def test_a_lone_slice_has_no_volume(algorithm: Algorithm, tmp_path: Path) -> None:
    write_series(tmp_path / "in", np.ones((1, 8, 9), np.int16), SliceThickness=5, **PATIENT)
    case = make_case(tmp_path / "in", lambda _: np.ones((8, 9), np.uint8), tmp_path)
    (path,) = ReportWriter(segmentation=segmentation_writer(algorithm))(case.prediction)
    assert complaints(path) == []
    assert [key for key, _ in by_dcmqi(path)[1]["values"]] == ["103339001", "112031", "112031", "COMPONENTS"]


def test_one_segmentation_serves_both(small: Case, algorithm: Algorithm) -> None:
    """Whichever is written first, the report refers to the segmentation that is there."""
    for report_first in (True, False):
        segmentation = segmentation_writer(algorithm)
        report = ReportWriter(segmentation=segmentation)
        for writer in (report, segmentation) if report_first else (segmentation, report):
            writer(small.prediction)
        there = pydicom.dcmread(small.prediction.stem.with_name("case_seg.dcm")).SOPInstanceUID
        found = by_dcmqi(small.prediction.stem.with_name("case_sr.dcm"))
        assert {group["segmentationSOPInstanceUID"] for group in found.values()} == {there}


def test_the_ejection_fraction(small: Case, algorithm: Algorithm) -> None:
    """Of three phases, the report has the largest and the smallest volume, and what follows from them."""
    report = ReportWriter(segmentation=segmentation_writer(algorithm), ejection_fraction="liver")
    mask = np.zeros((3, 40, 40), np.uint8)
    written = []
    for phase, rows in enumerate((30, 12, 20), 1):
        mask[:] = 0
        mask[:, :rows, :20] = 1
        original = small.prediction.original.clone()
        original.meta |= {"phase": phase}
        labels = MetaTensor(torch.from_numpy(mask.T.copy())[None], meta=original.meta)
        stem = small.prediction.stem.with_name(f"beat_phase0{phase}")
        written.append(report(Prediction(stem.name, stem, labels, original)))
    path = stem.with_name("beat_ejection_fraction.dcm")
    assert [len(paths) for paths in written] == [1, 2, 2] and written[2][1] == path
    assert complaints(path) == []
    volumes = sorted(group["values"]["118565006", ""][0] for group in groups_by_dcmqi(path))
    assert volumes == [pytest.approx(12 * 60), pytest.approx(30 * 60)]
    document = hd.sr.srread(path)
    diastole, systole = document.content.get_volumetric_roi_measurement_groups()
    headers = [pydicom.dcmread(stem.with_name(f"beat_phase0{n}_seg.dcm"), stop_before_pixels=True) for n in (1, 2)]
    for group, header in zip((diastole, systole), headers, strict=True):
        assert group.referenced_segment.referenced_sop_instance_uid == header.SOPInstanceUID
        assert group.tracking_uid == header.SegmentSequence[0].TrackingUID
    (ejection,) = document.content.get_image_measurement_groups()
    (fraction,) = ejection.get_measurements(codes.SCT.CardiacEjectionFraction)
    assert (fraction.value, fraction.unit) == (pytest.approx(60), codes.UCUM.Percent)
    inferred = [item for item in fraction[0].ContentSequence if item.RelationshipType == "INFERRED FROM"]
    assert [item.value for item in inferred] == [pytest.approx(1800), pytest.approx(720)]
    moments = [item.ContentSequence[-1].value for item in inferred]
    assert moments == [codes.SCT.EndDiastole, codes.SCT.EndSystole]


@pytest.mark.parametrize(("outputs", "written"), [(["sr"], ["seg", "sr"]), ("volumes", ["volumes"])])
def test_the_config_writes_the_segmentation_with_the_report(
    outputs: list[str] | str, written: list[str], tmp_path: Path
) -> None:
    parser = ConfigParser()
    parser.read_config(Path(__file__).parents[2] / "configs" / "inference.json")
    parser.config |= {"outputs": outputs, "output_dir": str(tmp_path), "model_file": str(tmp_path / "model.pt"),
                      "bundle_root": str(tmp_path)}  # fmt: skip
    writers = parser.get_parsed_content("writers")
    handler = SavePredictions(tmp_path, outputs=outputs, writers=writers, tally=Tally([]))
    assert list(handler.writers) == written
    if "sr" in written:
        assert writers["sr"].segmentation is writers["seg"]
