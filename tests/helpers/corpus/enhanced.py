# SPDX-License-Identifier: Apache-2.0
"""Enhanced objects: all frames of a scan in one file, with functional groups (PS3.3 C.7.6.16)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.helpers.corpus import remedies
from tests.helpers.corpus.form import Form, Stack, joined
from tests.helpers.corpus.writing import ORIGIN, SIZE, header, numbers, planes, uid, write_frames
from tests.helpers.dicom_files import item

CT, MR, PET = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.130"
LEGACY_CT, LEGACY_MR, LEGACY_PET = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2.2", "4.4", "128.1"))
TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
ANGIOGRAPHY_3D = "1.2.840.10008.5.1.4.1.1.13.1.1"
CHOICE = "refused, with a choice"


def enhanced(path: Path, sop_class: str, modality: str, where=None, stored=None, **options) -> Stack:
    stored = numbers() if stored is None else stored
    where = planes(len(stored)) if where is None else where
    options = {"BitsStored": 12, **header(modality, "enhanced", SOPClassUID=sop_class), **options}
    return write_frames(path, stored, where, SOPInstanceUID=uid(path.name), **options)


def one(sop_class: str, modality: str, **options: object) -> Callable[[Path], list[Stack]]:
    return lambda folder: [enhanced(folder / "IM0001", sop_class, modality, **options)]


def split(stack: Stack, count: int) -> list[Stack]:
    """Return the parts of a stack whose frames were written one part after the other."""
    length = len(stack) // count
    return [stack[k * length : (k + 1) * length] for k in range(count)]


def several(
    sop_class: str, modality: str, count: int, per_frame: Callable[[int], dict[str, object]], **options: object
):
    """Return what writes one object with stacks in the same places; `per_frame` is given the number of the stack."""

    def write(folder: Path) -> list[Stack]:
        stored = numbers((count * SIZE[0], *SIZE[1:]))
        stack = enhanced(
            folder / "IM0001",
            sop_class,
            modality,
            planes() * count,
            stored,
            per_frame=lambda index: per_frame(index // SIZE[0]),
            **options,
        )
        return split(stack, count)

    return write


def slopes(folder: Path) -> list[Stack]:
    """Every frame has a slope of its own."""
    return [enhanced(folder / "IM0001", PET, "PT", slope=[1.5, 2.25, 0.5, 3.0, 1.125, 0.75])]


def reversed_frames(folder: Path) -> list[Stack]:
    return [enhanced(folder / "IM0001", CT, "CT", planes(step=-3.0), intercept=-1024.0)]


def shuffled_frames(folder: Path) -> list[Stack]:
    where = planes()
    return [enhanced(folder / "IM0001", MR, "MR", [where[k] for k in (3, 0, 5, 1, 4, 2)])]


def two_stacks(folder: Path) -> list[Stack]:
    """Two stacks at an angle to each other, in one object."""
    where = planes() + planes(orientation=(1, 0, 0, 0, 0.8, 0.6), origin=np.add(ORIGIN, (0, 0, 60)))
    stored = numbers((2 * SIZE[0], *SIZE[1:]))
    stack = enhanced(
        folder / "IM0001",
        MR,
        "MR",
        where,
        stored,
        per_frame=lambda k: {
            "FrameContentSequence": item(StackID=str(1 + k // SIZE[0]), InStackPositionNumber=1 + k % SIZE[0])
        },
    )
    return split(stack, 2)


def frame_each(folder: Path) -> list[Stack]:
    """An enhanced object for each slice, of one frame."""
    where, stored = planes(), numbers()
    parts = [
        enhanced(folder / f"IM{k}", MR, "MR", where[k : k + 1], stored[k : k + 1], InstanceNumber=k + 1)
        for k in range(SIZE[0])
    ]
    return [joined(parts)]


def volume_each(folder: Path) -> list[Stack]:
    """An enhanced object for each time of a dynamic series."""
    return [
        enhanced(folder / f"IM{k}", MR, "MR", stored=numbers(start=k), InstanceNumber=k + 1, AcquisitionNumber=k + 1)
        for k in range(3)
    ]


def concatenation(folder: Path) -> list[Stack]:
    """One object that was too large, in two files."""
    where, stored = planes(), numbers()
    common = {
        "ConcatenationUID": uid("concatenation"),
        "SOPInstanceUIDOfConcatenationSource": uid("whole"),
        "InConcatenationTotalNumber": 2,
    }
    parts = [
        enhanced(
            folder / f"IM{part}",
            CT,
            "CT",
            where[first:last],
            stored[first:last],
            InConcatenationNumber=part + 1,
            ConcatenationFrameOffsetNumber=first,
            intercept=-1024.0,
            **common,
        )
        for part, (first, last) in enumerate(((0, 4), (4, 6)))
    ]
    return [joined(parts)]


def real_world_values(folder: Path) -> list[Stack]:
    """Philips: values of display by the slope, and a real world mapping beside it, which is not asked for."""
    mapping = item(
        RealWorldValueFirstValueMapped=0,
        RealWorldValueLastValueMapped=4095,
        RealWorldValueSlope=2.0,
        RealWorldValueIntercept=0.0,
        LUTLabel="Philips",
        LUTExplanation="x",
    )
    return [
        enhanced(
            folder / "IM0001", MR, "MR", slope=0.75, per_frame=lambda k: {"RealWorldValueMappingSequence": mapping}
        )
    ]


def parametric(folder: Path) -> list[Stack]:
    stored = (numbers() / 7).astype(np.float32)
    return [enhanced(folder / "IM0001", "1.2.840.10008.5.1.4.1.1.30", "MR", stored=stored, BitsStored=None)]


def echo(number: int) -> dict[str, object]:
    return {"MREchoSequence": item(EffectiveEchoTime=(20.0, 80.0)[number])}


def diffusion(number: int) -> dict[str, object]:
    return {"MRDiffusionSequence": item(DiffusionBValue=(0.0, 1000.0)[number], DiffusionDirectionality="ISOTROPIC")}


def directions(number: int) -> dict[str, object]:
    gradient = item(DiffusionGradientOrientation=np.eye(3)[number].tolist())
    group = item(
        DiffusionBValue=1000.0, DiffusionDirectionality="DIRECTIONAL", DiffusionGradientDirectionSequence=gradient
    )
    return {"MRDiffusionSequence": group}


def time(number: int) -> dict[str, object]:
    return {"FrameContentSequence": item(TemporalPositionIndex=number + 1, StackID="1", InStackPositionNumber=1)}


def kind(number: int) -> dict[str, object]:
    return {"MRImageFrameTypeSequence": item(FrameType=["ORIGINAL", "PRIMARY", "DIXON", ("WATER", "FAT")[number]])}


def phase(number: int) -> dict[str, object]:
    return {"CardiacSynchronizationSequence": item(NominalPercentageOfCardiacPhase=(0.0, 50.0)[number])}


def index_alone(folder: Path) -> list[Stack]:
    """Velocities of blood: nothing but the indices of the dimensions tells them apart."""
    count = SIZE[0]
    return several(MR, "MR", 3, lambda number: {}, indices=lambda k: [k % count + 1, k // count + 1])(folder)


FORMS = [
    Form("Enhanced CT", "Philips, Canon", one(CT, "CT", intercept=-1024.0)),
    Form("Enhanced CT, from the head down", "Philips", reversed_frames),
    Form("Enhanced CT in a concatenation of two files", "all", concatenation),
    Form("Enhanced MR", "Philips", one(MR, "MR")),
    Form("Enhanced MR, spacing for each frame", "Siemens XA", one(MR, "MR", measures_per_frame=True)),
    Form("Enhanced MR, orientation for all frames", "Canon", one(MR, "MR", orientation_per_frame=False)),
    Form("Enhanced MR, frames in any order", "Philips", shuffled_frames),
    Form("Enhanced MR, a file for each slice", "Siemens XA", frame_each),
    Form("Enhanced MR, sagittal", "Siemens XA", one(MR, "MR", where=planes(orientation=(0, 1, 0, 0, 0, -1)))),
    Form("Enhanced MR, display values beside real world values", "Philips", real_world_values),
    Form(
        "Enhanced MR, two echoes",
        "Philips",
        several(MR, "MR", 2, echo),
        CHOICE,
        refused=("echoes",),
        remedy=remedies.select,
    ),
    Form(
        "Enhanced MR, b-values",
        "Philips, Siemens XA",
        several(MR, "MR", 2, diffusion),
        CHOICE,
        refused=("b-values",),
        remedy=remedies.select,
    ),
    Form(
        "Enhanced MR, diffusion directions",
        "Siemens XA",
        several(MR, "MR", 3, directions),
        CHOICE,
        refused=("diffusion directions",),
        remedy=remedies.select,
    ),
    Form(
        "Enhanced MR, times", "Philips", several(MR, "MR", 3, time), CHOICE, refused=("times",), remedy=remedies.select
    ),
    Form(
        "Enhanced MR, water and fat",
        "Siemens XA",
        several(MR, "MR", 2, kind),
        CHOICE,
        refused=("Dixon images",),
        remedy=remedies.select,
    ),
    Form(
        "Enhanced MR, phases of the heart",
        "Philips",
        several(MR, "MR", 2, phase),
        CHOICE,
        refused=("cardiac phases",),
        remedy=remedies.select,
    ),
    Form(
        "Enhanced MR, told apart by the indices of dimensions alone",
        "Philips",
        index_alone,
        CHOICE,
        refused=("DimensionIndexValues",),
        remedy=remedies.select,
    ),
    Form(
        "Enhanced MR, two stacks at an angle",
        "Philips",
        two_stacks,
        CHOICE,
        refused=("orientations",),
        remedy=remedies.select,
    ),
    Form(
        "Enhanced MR, a file for each time",
        "Siemens XA",
        volume_each,
        CHOICE,
        refused=("acquisitions",),
        remedy=remedies.select,
    ),
    Form("Enhanced PET, a slope for each frame", "Siemens", slopes),
    Form("Legacy converted enhanced CT", "PACS", one(LEGACY_CT, "CT", intercept=-1024.0)),
    Form("Legacy converted enhanced MR", "PACS", one(LEGACY_MR, "MR")),
    Form("Legacy converted enhanced PET", "PACS", one(LEGACY_PET, "PT", slope=[1.5, 2.25, 0.5, 3.0, 1.125, 0.75])),
    Form("Digital breast tomosynthesis", "Hologic, Siemens", one(TOMOSYNTHESIS, "MG")),
    Form("3D angiography", "Siemens, Philips", one(ANGIOGRAPHY_3D, "XA")),
    Form("Ultrasound volume", "Philips, GE", one("1.2.840.10008.5.1.4.1.1.6.2", "US")),
    Form("Optical coherence tomography", "Zeiss, Heidelberg", one("1.2.840.10008.5.1.4.1.1.77.1.5.4", "OPT")),
    Form("Parametric map, float", "research", parametric),
]
