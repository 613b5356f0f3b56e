# SPDX-License-Identifier: Apache-2.0
"""PET and nuclear medicine."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom

from tests.helpers.corpus import remedies
from tests.helpers.corpus.form import Form, Slice, Stack
from tests.helpers.corpus.writing import SIZE, header, numbers, planes, uid, write_slices
from tests.helpers.dicom_files import AXIAL, CORONAL, item, make_image, save

SLOPES = [1.5, 2.25, 0.5, 3.0, 1.125, 0.75]


def pet(folder: Path, **options) -> Stack:
    """Write a PET series in Bq/ml: signed 16 bits, all used, a slope for each slice, from the head down."""
    isotope = item(RadionuclideTotalDose=3.7e8, RadionuclideHalfLife=6586.2, RadiopharmaceuticalStartTime="091500.00")
    options = {
        "stored": numbers(bits=15).astype("i2"),
        "where": planes(step=-3.0),
        "slope": SLOPES,
        "Units": "BQML",
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
        **header("PT", "pet", ImageType=["ORIGINAL", "PRIMARY"]),
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


#: What turns Bq/ml into g/ml by body weight: 75 kg, 370 MBq, whose half was left after 6586.2 s, an hour before.
AT_INJECTION = 75e3 / 3.7e8
AFTER_AN_HOUR = AT_INJECTION * 2 ** (3600 / 6586.2)


def uptake(factor: float, *, private: dict[int, str] | None = None, **options: object):
    """Return what writes a series whose uptake values are its stored ones times a factor."""

    def add_private(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
        for element, value in (private or {}).items():
            block.add_new(element, "DS", value)
        dataset.save_as(path)

    def write(folder: Path) -> list[Stack]:
        stack = pet(folder, finish=add_private, **options)
        return [[Slice(one.values * factor, one.plane) for one in stack]]

    return write


MIDNIGHT = {
    "SeriesTime": "003000",
    "AcquisitionTime": "003000",
    "RadiopharmaceuticalInformationSequence": item(
        RadionuclideTotalDose=3.7e8, RadionuclideHalfLife=6586.2, RadiopharmaceuticalStartTime="233000.00"
    ),
}
SUV = {"pet_units": "suv"}


def nm(path: Path, stored: np.ndarray, kind: str, **options: object) -> Stack:
    """Write a multi-frame image of nuclear medicine: its places are told by the first and the spacing (PS3.3 C.8.4)."""
    attributes = {
        "BitsStored": 16,
        **header("NM", "nm", ImageType=["ORIGINAL", "PRIMARY", kind, "EMISSION"]),
        **options,
    }
    save(make_image(stored, SOPInstanceUID=uid(path.name), InstanceNumber=1, **attributes), path)
    return [Slice(frame.astype(float), None) for frame in stored]


def spect(folder: Path, *, step: float = 4.0, orientation: Sequence[float] = AXIAL, slots: int = 1) -> list[Stack]:
    """Reconstructed slices, along the normal or against it, for some phases of the heart, in one object."""
    where = planes(spacing=(4.0, 3.5), orientation=orientation, step=step)
    detector = item(ImagePositionPatient=list(where[0].position), ImageOrientationPatient=list(where[0].orientation))
    count = SIZE[0]
    stack = nm(
        folder / "NM1",
        numbers((slots * count, *SIZE[1:]), bits=16),
        "RECON TOMO" if slots == 1 else "RECON GATED TOMO",
        PixelSpacing=[4, 3.5],
        SpacingBetweenSlices=step,
        SliceThickness=4,
        DetectorInformationSequence=detector,
        NumberOfSlices=count,
        SliceVector=[1 + k % count for k in range(slots * count)],
        TimeSlotVector=None if slots == 1 else [1 + k // count for k in range(slots * count)],
    )
    return [
        [Slice(one.values, plane) for one, plane in zip(stack[slot * count :][:count], where, strict=True)]
        for slot in range(slots)
    ]


def whole_body(folder: Path) -> list[Stack]:
    """From the front and from the back."""
    return [
        nm(folder / "NM1", numbers((2, 40, 16), bits=16), "WHOLE BODY", PixelSpacing=[2.4, 2.4], DetectorVector=[1, 2])
    ]


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
    Form("PET in SUV, corrected to the start of the scan", "GE, Siemens", uptake(AFTER_AN_HOUR), options=SUV),
    Form("PET in SUV, corrected to the injection", "all", uptake(AT_INJECTION, DecayCorrection="ADMIN"), options=SUV),
    Form("PET in SUV, injected before midnight", "all", uptake(AFTER_AN_HOUR, **MIDNIGHT), options=SUV),
    Form(
        "PET in SUV by Philips's factor",
        "Philips",
        uptake(0.000587, private={0x00: "0.000587"}, Units="CNTS"),
        options=SUV,
    ),
    Form(
        "PET in SUV by Philips's factor to activity",
        "Philips",
        uptake(1.25 * AFTER_AN_HOUR, private={0x09: "1.25"}, Units="CNTS"),
        options=SUV,
    ),
    Form(
        "PET without a weight",
        "anonymizers",
        lambda folder: [pet(folder, PatientWeight=None)],
        options=SUV,
        warns="values in BQML, no uptake values",
        happens="read in its own unit, with a warning",
    ),
    Form("SPECT, reconstructed, all slices in one object", "all", spect),
    Form("SPECT, slices from the head down (negative spacing)", "Siemens", lambda folder: spect(folder, step=-4.0)),
    Form("SPECT, coronal", "GE", lambda folder: spect(folder, orientation=CORONAL)),
    Form(
        "SPECT of a beating heart",
        "all",
        lambda folder: spect(folder, slots=3),
        "refused, with a choice",
        refused=("cardiac phases",),
        remedy=remedies.select,
    ),
    Form("Whole body from front and back", "all", whole_body),
]
