# SPDX-License-Identifier: Apache-2.0
"""Measure DICOM SEG of many classes: seconds and megabytes of BINARY and LABELMAP, beside highdicom's BINARY.

The labels are ellipsoids, one a class, on slices of a CT. Each file is read back by two other programs, highdicom and
dcmqi, which must find the very voxels, and dicom3tools' `dciodvfy` must find no error. A FRACTIONAL segmentation is not
measured: it holds a byte a voxel and class, 13 GB of a hundred classes. Run ``python -m benchmarks.seg_kinds`` from the
repository root.
"""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import highdicom as hd
import itk
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, generate_uid

from benchmarks.networks import processor
from bundle.pyraseg.core import write_json
from bundle.pyraseg.labels import SegmentClass, write_segmentation
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "seg_kinds.json"
PAGE = ROOT / "docs" / "inference.md"
TISSUE, CATEGORY = Code("85756007", "SCT", "Tissue"), Code("91723000", "SCT", "Anatomical Structure")
EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
         "StudyDate", "StudyTime", "ReferringPhysicianName")  # fmt: skip


def ellipsoids(shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> np.ndarray:
    """Return (slices, rows, columns) uint8 with an ellipsoid for each class; a later one covers earlier ones."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for value in range(1, classes + 1):
        center, radii = random.uniform(0.1, 0.9, 3) * shape, random.uniform(0.05, 0.12, 3) * shape
        first = np.maximum(np.floor(center - radii), 0).astype(int)
        last = np.minimum(np.ceil(center + radii) + 1, shape).astype(int)
        box = tuple(map(slice, first, last))
        distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip(np.ogrid[box], center, radii, strict=True))
        labels[box][distance < 1] = value
    return labels


def ct(shape: tuple[int, int, int]) -> list[Dataset]:
    """Return the headers of the slices, 1 mm apart."""
    study, series, frame = (generate_uid() for _ in range(3))
    found = []
    for number in range(shape[0]):
        image = Dataset()
        for keyword in EMPTY:
            setattr(image, keyword, "")
        image.SOPClassUID, image.SOPInstanceUID, image.Modality = CTImageStorage, generate_uid(), "CT"
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.Rows, image.Columns = shape[1:]
        image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness = [0.7, 0.7], 1
        found.append(image)
    return found


def by_highdicom(path: Path, labels: np.ndarray, sources: list[Dataset], classes: int) -> None:
    """Write BINARY by highdicom alone."""
    described = [
        SegmentDescription(number, f"class {number}", CATEGORY, TISSUE, "MANUAL") for number in range(1, classes + 1)
    ]
    Segmentation(
        sources, labels, "BINARY", described, generate_uid(), 2, generate_uid(), 1, "Maker", "Model", "1", "1"
    ).save_as(path)


def by_us(kind: str) -> Callable[[Path, np.ndarray, list[Dataset], int], None]:
    def write(path: Path, labels: np.ndarray, sources: list[Dataset], classes: int) -> None:
        described = [SegmentClass(f"class {number}", CATEGORY, TISSUE) for number in range(1, classes + 1)]
        write_segmentation(path, labels, sources, described, seg_type=kind)

    return write


WRITERS = {"highdicom BINARY": by_highdicom, "BINARY": by_us("BINARY"), "LABELMAP": by_us("LABELMAP")}


def highdicom_reads(path: Path, labels: np.ndarray, sources: list[Dataset]) -> bool:
    """Return whether highdicom finds the very labels, by the image of each slice."""
    uids = [source.SOPInstanceUID for source in sources]
    found = hd.seg.segread(path).get_pixels_by_source_instance(
        uids, combine_segments=True, skip_overlap_checks=True, assert_missing_frames_are_empty=True
    )
    return np.array_equal(found, labels)


def dcmqi_reads(path: Path, labels: np.ndarray) -> bool:
    """Return whether dcmqi finds the very labels, whose images may be cropped to what they hold."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [
            "segimage2itkimage",
            "--inputDICOM",
            path,
            "--outputDirectory",
            folder,
            "-t",
            "nrrd",
            "--mergeSegments",
        ]
        subprocess.run(command, check=True, capture_output=True)
        found = np.zeros_like(labels)
        for file in Path(folder).glob("*.nrrd"):
            image = itk.imread(file)
            values = itk.array_from_image(image)
            column, row, first = np.rint(np.divide(image.GetOrigin(), [0.7, 0.7, 1])).astype(int)
            there = found[first:, row:, column:][tuple(map(slice, values.shape))]
            np.copyto(there, values, where=values > 0, casting="unsafe")
    return np.array_equal(found, labels)


def errors(path: Path) -> list[str]:
    """Return what dciodvfy objects to."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace", check=False)
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


def measure(shape: tuple[int, int, int], classes: int) -> list[dict[str, object]]:
    """Return what each writer took, and who read its file."""
    labels, sources = ellipsoids(shape, classes), ct(shape)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, write in WRITERS.items():
            path = Path(folder) / "seg.dcm"
            wall, work = time.perf_counter(), time.process_time()
            write(path, labels, sources, classes)
            row: dict[str, object] = {"name": name, "seconds": round(time.perf_counter() - wall, 2)}
            row |= {"cpu_seconds": round(time.process_time() - work, 2), "megabytes": path.stat().st_size / 1e6}
            row["frames"] = int(hd.seg.segread(path).NumberOfFrames)
            wall = time.process_time()
            row["highdicom_reads"] = highdicom_reads(path, labels, sources)
            row["highdicom_read_cpu_seconds"] = round(time.process_time() - wall, 2)
            row |= {"dcmqi_reads": dcmqi_reads(path, labels), "dciodvfy_errors": errors(path)}
            rows.append(row)
            print(row, flush=True)
    return rows


def table(report: dict) -> str:
    """Return the results as a table of Markdown."""
    lines = ["| written as | frames | MB | seconds of CPU | highdicom reads it in |", "|---|---|---|---|---|"]
    for row in report["results"]:
        lines.append(
            f"| {row['name']} | {row['frames']} | {row['megabytes']:.0f} | {row['cpu_seconds']:.1f} | "
            f"{row['highdicom_read_cpu_seconds']:.1f} s |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="rows and columns")
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(argv)
    shape = options.slices, options.size, options.size
    packages = ("highdicom", "pydicom", "dcmqi", "numpy")
    report = {"shape": shape, "classes": options.classes, "processor": processor()}
    report |= {"versions": {name: version(name) for name in packages}, "results": measure(shape, options.classes)}
    write_json(options.output, report)
    page = replace_between_markers(options.page.read_text(encoding="utf-8"), "seg kinds", table(report))
    options.page.write_text(page, encoding="utf-8")
    print(f"Written to {options.output} and {options.page}")


if __name__ == "__main__":
    main()
