# SPDX-License-Identifier: Apache-2.0
"""MR: one image a file, and what scanners put into one series."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread

from tests.helpers.corpus import remedies
from tests.helpers.corpus.form import Form, Stack
from tests.helpers.corpus.writing import ORIGIN, SIZE, header, numbers, planes, uid, write_slices
from tests.helpers.dicom_files import AXIAL, CORONAL, SAGITTAL

OBLIQUE = (0.36, -0.8, 0.48, 0.48, 0.6, 0.64)  # an exact rotation
CHOICE = "refused, with a choice"


def mr(folder: Path, where=None, stored=None, **options) -> Stack:
    """Write an MR series: 12 bits in 16, unsigned, without a rescale, unless told otherwise."""
    stored = numbers() if stored is None else stored
    where = planes(len(stored)) if where is None else where
    options = {"BitsStored": 12, **header("MR", "mr", ImageType=["ORIGINAL", "PRIMARY", "M", "ND"]), **options}
    return write_slices(folder, stored, where, **options)


def single(**options: object) -> Callable[[Path], list[Stack]]:
    return lambda folder: [mr(folder, **options)]


def several(differing: Sequence[dict[str, object]], *, interleaved: bool = False, **common: object):
    """Return what writes stacks in the same places, with attributes that differ; numbered one after the other."""

    def write(folder: Path) -> list[Stack]:
        count, stacks = len(differing), []
        for number, own in enumerate(differing):

            def per_slice(k: int, number: int = number, own: dict = own) -> dict[str, object]:
                made = {name: value(k) if callable(value) else value for name, value in own.items()}
                at = k * count + number if interleaved else number * SIZE[0] + k
                return {"InstanceNumber": at + 1, **made}

            stacks.append(
                mr(
                    folder,
                    stored=numbers(start=number),
                    first=1000 * (number + 1),
                    per_slice=per_slice,
                    name=lambda k, n=number: f"MR{n}_{k:03d}",
                    **common,
                )
            )
        return stacks

    return write


def philips(folder: Path) -> list[Stack]:
    """Display values by a slope, and a private factor to the values of the measurement, which nobody is asked for."""
    return [mr(folder, slope=2.7514, intercept=0.0, Manufacturer="Philips Medical Systems", RescaleType="normalized")]


def unplaced(folder: Path) -> list[Stack]:
    """No frame of reference."""
    return [mr(folder, FrameOfReferenceUID=None, Manufacturer="HITACHI")]


def cine(folder: Path) -> list[Stack]:
    """Eight phases of the heart at six places; the times differ from place to place."""
    write = several(
        [{"TriggerTime": lambda k, p=p: round(p * (700 + 7 * k) / 8, 3), "CardiacNumberOfImages": 8} for p in range(8)],
        interleaved=True,
        Manufacturer="GE MEDICAL SYSTEMS",
    )
    return write(folder)


def functional(folder: Path) -> list[Stack]:
    """Every slice has a time of its own: brain volumes taken one after the other."""
    times = [
        {"AcquisitionTime": lambda k, t=t: f"1010{10 + 3 * t:02d}.{k}00000", "TemporalPositionIdentifier": None}
        for t in range(4)
    ]
    return several(times)(folder)


def private_b_values(folder: Path) -> list[Stack]:
    """The b-value stands in a private tag alone."""
    stacks = several([{}, {}, {}], interleaved=False, Manufacturer="SIEMENS")(folder)
    for file in folder.iterdir():
        dataset = dcmread(file)
        block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0C, "IS", str(500 * int(file.name[2])))
        dataset.save_as(file)
    return stacks


def numbered_anyhow(folder: Path) -> list[Stack]:
    """Two echoes of two inversions; which comes first differs from place to place."""
    kinds = [{"EchoTime": e, "InversionTime": t} for e in (20, 80) for t in (50, 400)]
    own = [kind | {"InstanceNumber": lambda k, n=n: 4 * k + (n + k) % 4 + 1} for n, kind in enumerate(kinds)]
    return several(own)(folder)


def three_ways(folder: Path) -> list[Stack]:
    """Two echoes of two inversions of two flip angles, numbered as they came."""
    kinds = [{"EchoTime": e, "InversionTime": t, "FlipAngle": f} for e in (20, 80) for t in (50, 400) for f in (5, 15)]
    own = [kind | {"InstanceNumber": lambda k, n=n: 8 * k + (3 * n + k) % 8 + 1} for n, kind in enumerate(kinds)]
    return several(own)(folder)


def aborted(folder: Path) -> list[Stack]:
    """A dynamic scan that was ended in its last volume."""
    stacks = several([{"AcquisitionNumber": t, "TemporalPositionIdentifier": t} for t in (1, 2, 3, 4)])(folder)
    for file in sorted(folder.glob("MR3_*"))[-2:]:
        file.unlink()
    return [*stacks[:3], stacks[3][:4]]


def tensor(folder: Path) -> list[Stack]:
    """Two images without diffusion weighting, and three directions."""
    plain = [{"DiffusionBValue": 0.0}] * 2
    weighted = [{"DiffusionBValue": 1000.0, "DiffusionGradientOrientation": np.eye(3)[k].tolist()} for k in range(3)]
    return several([*plain, *weighted])(folder)


def flow(folder: Path) -> list[Stack]:
    """Magnitude and velocities in three directions, each at four times of the heart."""
    kinds = [
        ["ORIGINAL", "PRIMARY", "M", "RETRO"],
        *(["DERIVED", "PRIMARY", "P", f"V_{way}"] for way in ("AP", "FH", "RL")),
    ]
    return several([{"ImageType": kind, "TriggerTime": time} for kind in kinds for time in (0.0, 200.0, 400.0, 600.0)])(
        folder
    )


def slabs(folder: Path) -> list[Stack]:
    """Two slabs of an angiography that overlap by two slices, in one series."""
    low, high = planes(), planes(origin=np.add(ORIGIN, (0, 0, 12.0)))
    first = mr(folder, low)
    second = mr(folder, high, numbers(start=1), first=7, name=lambda k: f"HIGH{k}")
    return [first, second]


def radial(folder: Path) -> list[Stack]:
    """Planes around an axis, as of bile ducts and long axes of the heart: no stack."""
    stacks = []
    for k in range(6):
        angle = np.pi * k / 6
        orientation = (round(np.cos(angle), 9), round(np.sin(angle), 9), 0, 0, 0, -1)
        where = planes(1, orientation=orientation)
        stacks.append(mr(folder, where, numbers((1, *SIZE[1:]), start=k), first=k + 1, name=lambda _, k=k: f"R{k}"))
    return stacks


def spine(folder: Path) -> list[Stack]:
    """Blocks of slices along the discs, each with an angle of its own."""
    stacks = []
    for block, angle in enumerate((0.0, 0.2, -0.25)):
        orientation = (1, 0, 0, 0, round(np.cos(angle), 9), round(np.sin(angle), 9))
        where = planes(4, orientation=orientation, origin=np.add(ORIGIN, (0, 0, 40 * block)))
        stacks.append(
            mr(
                folder,
                where,
                numbers((4, *SIZE[1:]), start=block),
                first=1 + 4 * block,
                name=lambda k, b=block: f"B{b}_{k}",
            )
        )
    return stacks


def three_planes(folder: Path) -> list[Stack]:
    """A survey in three planes whose ImageType does not say so."""
    return [
        mr(
            folder,
            planes(3, orientation=orientation, step=10.0),
            numbers((3, *SIZE[1:]), start=n),
            first=1 + 3 * n,
            name=lambda k, n=n: f"S{n}_{k}",
        )
        for n, orientation in enumerate((AXIAL, CORONAL, SAGITTAL))
    ]


def frames_of_reference(folder: Path) -> list[Stack]:
    """An anonymizer gave each image a frame of reference of its own."""
    return [mr(folder, per_slice=lambda k: {"FrameOfReferenceUID": uid("frame", k)})]


KINDS = (
    ["ORIGINAL", "PRIMARY", "DIXON", "WATER"],
    ["DERIVED", "PRIMARY", "DIXON", "FAT"],
    ["ORIGINAL", "PRIMARY", "DIXON", "IN_PHASE"],
    ["ORIGINAL", "PRIMARY", "DIXON", "OPP_PHASE"],
)

FORMS = [
    Form("MR, axial, no rescale", "GE, Siemens", single()),
    Form("MR, sagittal", "all", single(where=planes(orientation=SAGITTAL, step=-3.0))),
    Form("MR, coronal", "all", single(where=planes(orientation=CORONAL))),
    Form("MR, oblique", "all", single(where=planes(orientation=OBLIQUE, step=1.0))),
    Form("MR, all 16 bits", "GE", single(stored=numbers(bits=16), BitsStored=16)),
    Form("MR, signed", "GE", single(stored=numbers(bits=12, signed=True), BitsStored=16)),
    Form("MR, display values by a slope", "Philips", philips),
    Form("MR without a frame of reference", "Hitachi", unplaced),
    Form("MR, gap between slices as wide as they are", "all", single(where=planes(step=6.0))),
    Form(
        "MR, two echoes",
        "GE, Siemens",
        several([{"EchoTime": 20, "EchoNumbers": 1}, {"EchoTime": 80.5, "EchoNumbers": 2}]),
        CHOICE,
        refused=("echoes",),
        remedy=remedies.select,
    ),
    Form(
        "MR, water, fat, in phase and opposed phase",
        "Siemens, Philips",
        several([{"ImageType": kind} for kind in KINDS]),
        CHOICE,
        refused=("Dixon images",),
        remedy=remedies.select,
    ),
    Form(
        "MR, magnitude and phase",
        "Siemens, Philips",
        several([{"ImageType": ["ORIGINAL", "PRIMARY", kind, "ND"]} for kind in "MP"]),
        CHOICE,
        refused=("magnitude, phase",),
        remedy=remedies.select,
    ),
    Form(
        "MR, b-values",
        "Philips, GE, Siemens XA",
        several([{"DiffusionBValue": b} for b in (0.0, 500.0, 1000.0)]),
        CHOICE,
        refused=("b-values",),
        remedy=remedies.select,
    ),
    Form(
        "MR, b-values in a private tag",
        "Siemens, GE",
        private_b_values,
        CHOICE,
        refused=("b-values",),
        remedy=remedies.select,
    ),
    Form(
        "MR, diffusion directions",
        "Siemens, Philips, GE",
        several([{"DiffusionBValue": 1000.0, "DiffusionGradientOrientation": np.eye(3)[k].tolist()} for k in range(3)]),
        CHOICE,
        refused=("diffusion directions",),
        remedy=remedies.select,
    ),
    Form(
        "MR, trace and its ADC map",
        "Siemens",
        several([{"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", kind]} for kind in ("TRACEW", "ADC")]),
        CHOICE,
        refused=("diffusion images and maps",),
        remedy=remedies.select,
    ),
    Form(
        "MR, dynamic, numbered times",
        "Philips, GE",
        several([{"TemporalPositionIdentifier": t} for t in (1, 2, 3)]),
        CHOICE,
        refused=("times of a dynamic series",),
        remedy=remedies.select,
    ),
    Form(
        "MR, dynamic, acquisitions",
        "Siemens",
        several([{"AcquisitionNumber": t, "ContentTime": f"1010{t}0"} for t in (1, 2, 3)]),
        CHOICE,
        refused=("acquisitions",),
        remedy=remedies.select,
    ),
    Form(
        "MR, cine, times differ from place to place",
        "GE",
        cine,
        CHOICE,
        refused=("cardiac phases",),
        remedy=remedies.select,
    ),
    Form(
        "MR, functional, a time for each slice",
        "GE, Canon",
        functional,
        CHOICE,
        refused=("times",),
        remedy=remedies.select,
    ),
    Form(
        "MR, inversion times",
        "all",
        several([{"InversionTime": t} for t in (50, 400, 1500)]),
        CHOICE,
        refused=("inversion times",),
        remedy=remedies.select,
    ),
    Form(
        "MR, flip angles",
        "GE, Siemens",
        several([{"FlipAngle": t} for t in (4, 18)]),
        CHOICE,
        refused=("flip angles",),
        remedy=remedies.select,
    ),
    Form(
        "MR, two inversions of two echoes",
        "Siemens",
        several([{"EchoTime": e, "InversionTime": t} for e in (20, 80) for t in (50, 400)]),
        CHOICE,
        refused=("echoes",),
        remedy=remedies.select,
    ),
    Form(
        "MR, the same, numbered in another order in each place",
        "GE",
        numbered_anyhow,
        CHOICE,
        refused=("echoes",),
        remedy=remedies.select,
    ),
    Form(
        "MR, three attributes differ, numbered in any order",
        "GE",
        three_ways,
        CHOICE,
        refused=("echoes", "flip angles"),
        remedy=remedies.select,
    ),
    Form(
        "MR, dynamic, ended in its last volume",
        "all",
        aborted,
        CHOICE,
        refused=("acquisitions",),
        remedy=remedies.select,
    ),
    Form(
        "MR, diffusion tensor with two images without weighting",
        "Philips, GE",
        tensor,
        CHOICE,
        refused=("b-values",),
        remedy=remedies.select,
    ),
    Form(
        "MR, flow in three directions over the heart beat",
        "Siemens, GE",
        flow,
        CHOICE,
        refused=("cardiac phases",),
        remedy=remedies.select,
    ),
    Form(
        "MR, slabs that overlap",
        "Siemens",
        slabs,
        "refused, until each slab has a folder of its own",
        refused=("12 slices lie in 10 places",),
        remedy=remedies.stack_each,
    ),
    Form(
        "MR, planes around an axis",
        "all",
        radial,
        "refused, with a choice of each plane",
        refused=("orientations",),
        remedy=remedies.select,
    ),
    Form("MR, blocks of slices at angles", "all", spine, CHOICE, refused=("orientations",), remedy=remedies.select),
    Form(
        "MR, a survey in three planes",
        "Philips, UIH",
        three_planes,
        CHOICE,
        refused=("orientations",),
        remedy=remedies.select,
    ),
    Form(
        "MR, a frame of reference for each image",
        "anonymizers",
        frames_of_reference,
        "refused, with `--select FrameOfReferenceUID=any`",
        refused=("frames of reference",),
        remedy=remedies.select,
    ),
]
