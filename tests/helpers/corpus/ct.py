# SPDX-License-Identifier: Apache-2.0
"""CT: how scanners of several makers and reformats write it."""

from pathlib import Path

import numpy as np

from tests.helpers.corpus import remedies
from tests.helpers.corpus.form import Form, Slice, Stack
from tests.helpers.corpus.writing import ORIGIN, SIZE, describe, header, numbers, planes, uid, write_slices
from tests.helpers.dicom_files import CORONAL, SAGITTAL, make_image, save

TILT = np.deg2rad(18.5)
TURN = ((0.36, -0.8, 0.48), (0.48, 0.6, 0.64))  # an exact rotation


def ct(folder: Path, where=None, stored=None, **options) -> Stack:
    """Write a CT series: 12 bits in 16, unsigned, 1024 below HU, unless told otherwise."""
    stored = numbers() if stored is None else stored
    where = planes(len(stored)) if where is None else where
    options = {"intercept": -1024.0, "BitsStored": 12, **header("CT", "ct"), **options}
    return write_slices(folder, stored, where, **options)


def siemens(folder: Path) -> list[Stack]:
    kind = ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"]
    return [
        ct(
            folder,
            ImageType=kind,
            Manufacturer="SIEMENS",
            ConvolutionKernel="B30f",
            PatientPosition="HFS",
            SmallestImagePixelValue=0,
            LargestImagePixelValue=4095,
        )
    ]


def ge(folder: Path) -> list[Stack]:
    """Signed, all 16 bits, padded with -2000 outside the circle of reconstruction."""
    stored = (numbers().astype(np.int16) + 24).clip(0)
    stored[:, :2, :3] = -2000
    stack = ct(folder, stored=stored, BitsStored=16, PixelPaddingValue=-2000, Manufacturer="GE MEDICAL SYSTEMS")
    return [padded(stack, stored == -2000)]


def philips(folder: Path) -> list[Stack]:
    """Padding that is written as an unsigned number, though the pixels are signed."""
    stored = numbers().astype(np.int16)
    stored[:, :, :2] = -2000

    def as_unsigned(path: Path) -> None:
        raw = path.read_bytes()
        assert raw.count(b"\x28\x00\x20\x01SS\x02\x00") == 1
        path.write_bytes(raw.replace(b"\x28\x00\x20\x01SS\x02\x00", b"\x28\x00\x20\x01US\x02\x00"))

    stack = ct(
        folder, stored=stored, BitsStored=16, PixelPaddingValue=-2000, Manufacturer="Philips", finish=as_unsigned
    )
    return [padded(stack, stored == -2000)]


def toshiba(folder: Path) -> list[Stack]:
    """Signed without an intercept, positions falling with the numbers, padding as a range."""
    stored = numbers(signed=True)
    stored[:, -1] = -2048
    stored[:, -2] = -2040
    where = planes(step=-3.0)
    stack = ct(
        folder,
        where,
        stored,
        intercept=0.0,
        BitsStored=16,
        PixelPaddingValue=-2048,
        PixelPaddingRangeLimit=-2040,
        Manufacturer="TOSHIBA",
    )
    return [padded(stack, stored <= -2040)]


def padded(stack: Stack, padding: np.ndarray) -> Stack:
    """Return slices whose padding has the smallest value that is none."""
    least = min(float(one.values[~mask].min()) for one, mask in zip(stack, padding, strict=True))
    pairs = zip(stack, padding, strict=True)
    return [Slice(np.where(mask, least, one.values), one.plane, padding=mask) for one, mask in pairs]


def tilted(folder: Path) -> list[Stack]:
    """Rows lean by the angle of the gantry, and the table goes on along the body."""
    orientation = (1, 0, 0, 0, np.cos(TILT), -np.sin(TILT))
    return [ct(folder, planes(orientation=orientation, step=(0, 0, 5.0)), GantryDetectorTilt=18.5)]


def turned(orientation, **attributes):
    return lambda folder: [ct(folder, planes(orientation=orientation), **attributes)]


def uneven(folder: Path) -> list[Stack]:
    """A head: 3 mm at the base of the skull, 7 mm above."""
    heights = np.r_[np.arange(6) * 3.0, 15 + np.arange(1, 5) * 7.0]
    where = [planes(1, origin=np.add(ORIGIN, (0, 0, height)))[0] for height in heights]
    return [ct(folder, where, numbers((10, *SIZE[1:])))]


def gap(folder: Path) -> list[Stack]:
    """A slice was lost on the way."""
    where = [plane for k, plane in enumerate(planes(9)) if k != 5]
    return [ct(folder, where, numbers((8, *SIZE[1:])))]


def jittered(folder: Path) -> list[Stack]:
    """Positions and cosines are rounded, differently in each slice."""
    rng = np.random.default_rng(0)
    where = []
    for plane in planes():
        position = tuple(np.round(np.add(plane.position, rng.uniform(-3e-4, 3e-4, 3)), 4).tolist())
        where.append(type(plane)(position, (1, 0, 0, 0, 1, float(rng.uniform(-2e-5, 2e-5))), plane.spacing))
    return [ct(folder, where)]


def with_scout(folder: Path) -> list[Stack]:
    write_slices(
        folder,
        numbers((1, 40, 30), start=9),
        planes(1, orientation=CORONAL),
        name=lambda k: "SCOUT",
        **header("CT", "ct", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], BitsStored=12),
    )
    return [ct(folder, first=2)]


def with_dose_report(folder: Path) -> list[Stack]:
    screen = header(
        "CT", "ct", SOPClassUID="1.2.840.10008.5.1.4.1.1.7", ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]
    )
    write_slices(folder, numbers((1, 40, 30), bits=8), [None], name=lambda k: "DOSE", first=999, **screen)
    return [ct(folder)]


def two_sizes(folder: Path) -> list[Stack]:
    """Reformats of another size lie in the series of the images."""
    small = numbers((3, 10, 12), start=5)
    return [ct(folder), ct(folder, planes(3, orientation=CORONAL), small, first=100, name=lambda k: f"MPR{k}")]


def acquisitions(folder: Path) -> list[Stack]:
    """Two contrast phases, one after the other, in one series."""
    return [
        ct(folder / phase, first=first, AcquisitionNumber=number, stored=numbers(start=first))
        for phase, number, first in (("a", 1, 1), ("b", 2, 7))
    ]


def reconstructions(folder: Path) -> list[Stack]:
    return [
        ct(
            folder,
            first=first,
            ConvolutionKernel=kernel,
            stored=numbers(start=first),
            name=lambda k, s=kernel: f"{s}{k}",
        )
        for kernel, first in (("B30f", 1), ("B70f", 7))
    ]


def low_dose_4d(folder: Path) -> list[Stack]:
    """A perfusion of the brain: the table stands still, and only the time of the acquisition differs."""
    return [
        ct(
            folder,
            first=1 + 6 * time,
            AcquisitionTime=f"1010{10 + 2 * time:02d}.000",
            AcquisitionNumber=1,
            stored=numbers(start=time),
            name=lambda k, t=time: f"T{t}_{k}",
        )
        for time in range(4)
    ]


def thick_overlapping(folder: Path) -> list[Stack]:
    return [ct(folder, planes(step=2.0), SliceThickness=5)]


def two_zooms(folder: Path) -> list[Stack]:
    """The same slices in two fields of view."""
    zoomed = planes(spacing=(0.75, 0.625))
    return [ct(folder), ct(folder, zoomed, numbers(start=2), first=7, name=lambda k: f"ZOOM{k}")]


def with_color(folder: Path) -> list[Stack]:
    """A picture in color of the volume, with a place, among the slices."""
    stack = ct(folder)
    pixels = np.random.default_rng(1).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    plane = planes(8)[7]
    own = {
        **header("CT", "ct", ImageType=["DERIVED", "SECONDARY", "3D"]),
        **describe(plane),
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "Rows": 20,
        "Columns": 24,
        "InstanceNumber": 99,
        "SOPInstanceUID": uid("picture"),
    }
    save(make_image(pixels.tobytes(), **own), folder / "VRT")
    return [stack, [Slice(pixels, plane)]]


def turned_back(folder: Path) -> list[Stack]:
    """Half of the images mirrored by a workstation, with their orientation."""
    where = planes()
    mirrored = planes(orientation=(-1, 0, 0, 0, 1, 0), origin=np.add(ORIGIN, (0, 0, 18.0)))
    return [ct(folder, where), ct(folder, mirrored, numbers(start=3), first=7, name=lambda k: f"MIRROR{k}")]


def decubitus(folder: Path) -> list[Stack]:
    return [ct(folder, planes(orientation=(0, 1, 0, -1, 0, 0)), PatientPosition="HFDR")]


def window_empty(folder: Path) -> list[Stack]:
    return [ct(folder, WindowCenter="", WindowWidth="")]


FORMS = [
    Form("CT, 12 bits in 16, unsigned", "Siemens", siemens),
    Form("CT, signed, padded with -2000", "GE", ge),
    Form("CT, padding written as an unsigned number", "Philips", philips),
    Form("CT, signed, padding as a range, numbered from the head down", "Toshiba, Canon", toshiba),
    Form("CT, gantry tilted by 18.5°", "all", tilted, happens="read; its affine is sheared"),
    Form("CT, head first, prone", "all", turned((-1, 0, 0, 0, -1, 0), PatientPosition="HFP")),
    Form("CT, feet first, supine", "all", turned((1, 0, 0, 0, 1, 0), PatientPosition="FFS")),
    Form("CT, feet first, mirrored rows", "all", turned((-1, 0, 0, 0, 1, 0), PatientPosition="FFS")),
    Form("CT, feet first, prone", "all", turned((-1, 0, 0, 0, -1, 0), PatientPosition="FFP")),
    Form("CT, on the right side", "all", decubitus),
    Form("CT, coronal reformat", "all", turned(CORONAL, ImageType=["DERIVED", "SECONDARY", "MPR"])),
    Form("CT, sagittal reformat", "all", turned(SAGITTAL, ImageType=["DERIVED", "SECONDARY", "MPR"])),
    Form("CT, oblique reformat", "all", turned((*TURN[0], *TURN[1]), ImageType=["DERIVED", "SECONDARY", "MPR"])),
    Form(
        "CT, 3 mm below and 7 mm above",
        "all",
        uneven,
        warns="not evenly spaced",
        happens="read slice by slice, with a warning; the label map comes on a regular grid",
    ),
    Form(
        "CT, a slice missing",
        "all",
        gap,
        warns="a slice may be missing",
        happens="read with a warning; volumes count nothing in the gap",
    ),
    Form("CT, slices thicker than their distance", "all", thick_overlapping),
    Form("CT, positions and cosines rounded", "Philips", jittered),
    Form("CT, one slice", "all", lambda folder: [ct(folder, stored=numbers((1, *SIZE[1:])))]),
    Form("CT, empty window", "some PACS", window_empty),
    Form(
        "CT with its scout in the series",
        "GE, Siemens",
        with_scout,
        happens="read; the scout is left out, which is told",
    ),
    Form(
        "CT with a dose report in the series",
        "GE, Philips",
        with_dose_report,
        happens="read; the report is left out, which is told",
    ),
    Form(
        "CT with reformats of another size in the series",
        "GE",
        two_sizes,
        refused=("image sizes", "--select"),
        remedy=remedies.select,
        happens="refused, with a choice",
    ),
    Form(
        "CT in two fields of view",
        "Siemens",
        two_zooms,
        refused=("pixel spacings", "--select"),
        remedy=remedies.select,
        happens="refused, with a choice",
    ),
    Form(
        "CT with a picture in color among the slices",
        "GE, Canon",
        with_color,
        refused=("gray and color", "--select"),
        remedy=remedies.select,
        happens="refused, with a choice",
    ),
    Form(
        "CT, half of it mirrored",
        "workstations",
        turned_back,
        refused=("orientations", "--select"),
        remedy=remedies.select,
        happens="refused, with a choice",
    ),
    Form(
        "CT, two contrast phases",
        "all",
        acquisitions,
        refused=("acquisitions", "--select"),
        remedy=remedies.select,
        happens="refused, with a choice",
    ),
    Form(
        "CT, two kernels",
        "Siemens, Canon",
        reconstructions,
        refused=("reconstructions", "--select"),
        remedy=remedies.select,
        happens="refused, with a choice",
    ),
    Form(
        "CT, perfusion with a time for each volume",
        "Canon",
        low_dose_4d,
        refused=("times", "--select"),
        remedy=remedies.select,
        happens="refused, with a choice",
    ),
]
