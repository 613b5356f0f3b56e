# SPDX-License-Identifier: Apache-2.0
"""PET and nuclear medicine."""

from collections.abc import Sequence
from pathlib import Path

from tests.helpers.corpus import remedies
from tests.helpers.corpus.form import Form, Stack
from tests.helpers.corpus.writing import SIZE, header, numbers, planes, write_slices
from tests.helpers.dicom_files import item

SLOPES = [1.5, 2.25, 0.5, 3.0, 1.125, 0.75]


def pet(folder: Path, **options) -> Stack:
    """Write a PET series in Bq/ml: signed 16 bits, all used, a slope for each slice, from the head down."""
    isotope = item(RadionuclideTotalDose=3.7e8, RadionuclideHalfLife=6586.2, RadiopharmaceuticalStartTime="091500.00")
    options = {
        "stored": numbers(bits=15).astype("i2"),
        "where": planes(step=-3.0),
        "slope": SLOPES,
        "Units": "BQML",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "DecayCorrection": "START",
        "CorrectedImage": ["NORM", "DTIM", "ATTN", "DECY"],
        "SeriesType": ["WHOLE BODY", "IMAGE"],
        "PatientWeight": 75,
        "SeriesDate": "20240102",
        "SeriesTime": "101500",
        "AcquisitionDate": "20240102",
        "AcquisitionTime": "101500",
        "RescaleType": None,
        "RadiopharmaceuticalInformationSequence": isotope,
        **header("PT", "pet"),
        **options,
    }
    return write_slices(folder, options.pop("stored"), options.pop("where"), **options)


def stacks(folder: Path, differing: Sequence[dict[str, object]], **common: object) -> list[Stack]:
    return [
        pet(
            folder,
            stored=numbers(bits=15, start=n).astype("i2"),
            first=1 + n * SIZE[0],
            name=lambda k, n=n: f"PT{n}_{k}",
            **common,
            **own,
        )
        for n, own in enumerate(differing)
    ]


def dynamic(folder: Path) -> list[Stack]:
    """Frames of growing length after an injection."""
    times = [(0, 30000, "101500"), (30000, 60000, "101530"), (90000, 300000, "101630")]
    own = [
        {"FrameReferenceTime": start + length / 2, "ActualFrameDuration": length, "AcquisitionTime": clock}
        for start, length, clock in times
    ]
    return stacks(folder, own, SeriesType=["DYNAMIC", "IMAGE"], NumberOfTimeSlices=3)


def gated(folder: Path) -> list[Stack]:
    own = [{"TriggerTime": time, "FrameTime": 250} for time in (0.0, 250.0, 500.0)]
    return stacks(folder, own, SeriesType=["GATED", "IMAGE"])


FORMS = [
    Form("PET, a slope for each slice", "GE, Philips", lambda folder: [pet(folder)]),
    Form("PET, one slope", "Siemens", lambda folder: [pet(folder, slope=2.5)]),
    Form("PET, counts, with a factor of the maker", "Philips", lambda folder: [pet(folder, Units="CNTS", slope=1.0)]),
    Form("PET in grams a milliliter", "GE", lambda folder: [pet(folder, Units="GML", slope=0.001)]),
    Form(
        "PET, times of a dynamic scan",
        "Siemens, GE",
        dynamic,
        "refused, with a choice",
        refused=("times",),
        remedy=remedies.select,
    ),
    Form(
        "PET, gated",
        "Siemens, GE",
        gated,
        "refused, with a choice",
        refused=("cardiac phases",),
        remedy=remedies.select,
    ),
]
