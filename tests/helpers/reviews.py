# SPDX-License-Identifier: Apache-2.0
"""Reviews of made-up results, and a small series with a result of a model and its correction, written by highdicom."""

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from bundle.pyraseg_tools.review.record import Algorithm, Result, Review
from tests.helpers.dicom_files import PATIENT, write_series
from tests.helpers.seg_files import CATEGORY, CODES, NAMES

WEIGHTS = "0123456789ab"
MADE_BY = ("pyraseg_phantom", f"0.4.0, weights {WEIGHTS}")


def reviewed(
    decisions: str, *, scanner: str = "Maker One", weights: str = WEIGHTS, dice: float = 0.9, start: int = 0
) -> list[Review]:
    """Return a review for each letter, "+" accepted, "~" amended and "-" rejected, one a day."""
    meant = {"+": "accepted", "~": "amended", "-": "rejected"}
    manufacturer, model_name = scanner.split()
    found = []
    for day, letter in enumerate(decisions, start):
        algorithm = Algorithm(MADE_BY[0], f"0.4.0, weights {weights}")
        time = (np.datetime64("2026-01-01") + day).astype(str) + "T08:00:00+00:00"
        found.append(
            Review(
                meant[letter],
                "radiologist",
                time,
                Result(f"2.25.{day + 1}", "", algorithm),
                f"2.25.9{day}",
                manufacturer,
                model_name,
                dice={"liver": dice} if letter == "~" else {},
            )
        )
    return found


def write_scan(folder: Path) -> Path:
    """Write a series of three slices of 8 x 8 of a scanner."""
    stated = {**PATIENT, "Manufacturer": "Maker", "ManufacturerModelName": "Scanner 7", "SliceThickness": 1}
    write_series(folder, np.zeros((3, 8, 8), np.int16), **stated)
    return folder


def write_by_highdicom(
    path: Path, series: Path, mask: np.ndarray, kind: str = "AUTOMATIC", *, names: Sequence[str] = NAMES[:2]
) -> Path:
    """Write a SEG of a series by highdicom alone: a result of a model, or its correction.

    Args:
        path: to write.
        series: folder of the images.
        mask: (N, rows, columns), or with a channel for each of segments that overlap.
        kind: Segment Algorithm Type.
        names: of the segments.
    """
    version = hd.AlgorithmIdentificationSequence(
        MADE_BY[0], Code("123110", "DCM", "Artificial Intelligence"), MADE_BY[1]
    )
    Segmentation(
        source_images=[pydicom.dcmread(file) for file in sorted(series.glob("*.dcm"))],
        pixel_array=mask,
        segmentation_type="BINARY",
        segment_descriptions=[
            SegmentDescription(number, name, CATEGORY, CODES[number - 1], kind, version)
            for number, name in enumerate(names, 1)
        ],
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Another maker",
        manufacturer_model_name="Model",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)
    return path
