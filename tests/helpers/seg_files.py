# SPDX-License-Identifier: Apache-2.0
"""DICOM segmentations written by highdicom alone."""

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from bundle.pyraseg.labels.class_table import ClassTable

NAMES = ["liver", "lesion", "spleen"]
TABLE = ClassTable(["background", *NAMES])
CODES = [Code("10200004", "SCT", "Liver"), Code("52988006", "SCT", "Lesion"), Code("78961009", "SCT", "Spleen")]
CATEGORY = Code("91723000", "SCT", "Anatomical Structure")


def describe(number: int, label: str, code: Code) -> SegmentDescription:
    return SegmentDescription(number, label, CATEGORY, code, algorithm_type="MANUAL")


def write(
    path: Path,
    pixels: np.ndarray | hd.Volume,
    sources: list[Dataset],
    kind: str = "BINARY",
    *,
    names: list[str] = NAMES,
    codes: list[Code] = CODES,
    **options: object,
) -> Path:
    """Write a segmentation by highdicom alone."""
    Segmentation(
        source_images=sources,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[describe(n, *pair) for n, pair in enumerate(zip(names, codes, strict=True), 1)],
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Maker",
        manufacturer_model_name="Model",
        software_versions="1",
        device_serial_number="1",
        **options,
    ).save_as(path)
    return path


def change(path: Path, action: object) -> Path:
    """Change the data set of a file."""
    dataset = pydicom.dcmread(path)
    action(dataset)
    dataset.save_as(path)
    return path
