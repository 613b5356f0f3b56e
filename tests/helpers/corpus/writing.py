# SPDX-License-Identifier: Apache-2.0
"""Write stacks of images as scanners do: a file a slice, or all frames in one file; return what they mean."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from tests.helpers.corpus.form import Plane, Slice, Stack
from tests.helpers.dicom_files import AXIAL, item, make_image, save
from tests.helpers.dicom_files import uid as uid_of

SIZE = (6, 20, 24)  # slices, rows, columns
SPACING = (1.5, 1.25)  # between rows, between columns, mm
ORIGIN = (-40.0, -35.5, 100.25)
CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "NM": "1.2.840.10008.5.1.4.1.1.20",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "MG": "1.2.840.10008.5.1.4.1.1.1.2",
    "XA": "1.2.840.10008.5.1.4.1.1.12.1",
    "RF": "1.2.840.10008.5.1.4.1.1.12.2",
    "XC": "1.2.840.10008.5.1.4.1.1.77.1.4",
    "ES": "1.2.840.10008.5.1.4.1.1.77.1.1",
    "OP": "1.2.840.10008.5.1.4.1.1.77.1.5.1",
}


_WRITTEN_FOR: ContextVar[str] = ContextVar("_WRITTEN_FOR", default="")


@contextmanager
def written_for(name: str) -> Iterator[None]:
    """Let forms have UIDs of their own by a name, so that several may lie in one folder."""
    token = _WRITTEN_FOR.set(name)
    yield
    _WRITTEN_FOR.reset(token)


def uid(*words: object) -> UID:
    """Return the same UID for the same words."""
    return uid_of(_WRITTEN_FOR.get(), *words)


def numbers(size: Sequence[int] = SIZE, *, bits: int = 12, signed: bool = False, start: int = 0) -> np.ndarray:
    """Return stored values of a size, no two alike while there are enough of them, and neighbors far apart.

    They fill their bits; ``start`` makes other ones.
    """
    count = 2**bits
    values = (np.arange(np.prod(size)) + start * 997) * 2731 % count  # 2731 is odd: every value comes once
    values = values.reshape(size)
    kind = "u1" if bits <= 8 else "u2"
    if signed:
        return (values - count // 2).astype(kind.replace("u", "i"))
    return values.astype(kind)


def planes(
    count: int = SIZE[0],
    *,
    orientation: Sequence[float] = AXIAL,
    step: float | Sequence[float] = 3.0,
    origin: Sequence[float] = ORIGIN,
    spacing: tuple[float, float] = SPACING,
) -> list[Plane]:
    """Return parallel planes, a step in mm along their normal or a vector apart."""
    normal = np.cross(orientation[:3], orientation[3:])
    vector = normal * step if np.isscalar(step) else np.asarray(step, float)
    return [
        Plane(tuple(np.round(origin + k * vector, 6).tolist()), tuple(map(float, orientation)), spacing)
        for k in range(count)
    ]


def describe(plane: Plane | None) -> dict[str, object]:
    """Return the attributes of a plane in a single image."""
    if plane is None:
        return {}
    return {
        "ImagePositionPatient": [float(f"{value:.10g}") for value in plane.position],
        "ImageOrientationPatient": [float(f"{value:.9f}") for value in plane.orientation],
        "PixelSpacing": list(plane.spacing),
    }


def header(modality: str, series: str, **attributes: object) -> dict[str, object]:
    """Return what all images of a series have, as the modules of patient, study, series and equipment want it."""
    return {
        "SOPClassUID": CLASSES.get(modality, CLASSES["CT"]),
        "Modality": modality,
        "StudyInstanceUID": uid("study", series),
        "SeriesInstanceUID": uid("series", series),
        "FrameOfReferenceUID": uid("frame", series),
        "PatientName": "Secret^Name",
        "PatientID": "SECRET-ID",
        "PatientBirthDate": "19500101",
        "PatientSex": "F",
        "StudyDate": "20240102",
        "StudyTime": "101500",
        "StudyID": "1",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "SeriesNumber": 4,
        "SliceThickness": 3,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        **attributes,
    }


def write_slices(
    folder: Path,
    stored: np.ndarray,
    where: Sequence[Plane | None],
    *,
    slope: float | Sequence[float] = 1.0,
    intercept: float | Sequence[float] = 0.0,
    name: Callable[[int], str] = lambda index: f"IM{index:04d}.dcm",
    syntax: UID = ExplicitVRLittleEndian,
    meta: bool = True,
    first: int = 1,
    per_slice: Callable[[int], dict[str, object]] = lambda index: {},
    finish: Callable[[Path], object] = lambda path: None,
    **attributes: object,
) -> Stack:
    """Write a file for each slice, stored values (N, rows, columns), and return what they mean.

    Args:
        folder: where to.
        stored: values as they stand in the files.
        where: a plane, or None, for each.
        slope, intercept: of all slices, or of each.
        name: of the file of a slice.
        syntax: transfer syntax.
        meta: write preamble and meta header.
        first: Instance Number of the first.
        per_slice: attributes of one slice.
        finish: done with each file.
        attributes: of all slices; None leaves one out.
    """
    slopes, intercepts = (np.broadcast_to(value, len(stored)) for value in (slope, intercept))
    series = str(attributes.get("SeriesInstanceUID"))
    rescaled = {} if (slope, intercept) == (1.0, 0.0) and attributes.get("Modality") == "MR" else None
    stack = []
    for index, (image, plane) in enumerate(zip(stored, where, strict=True)):
        own = {
            "InstanceNumber": first + index,
            "SOPInstanceUID": uid("image", series, first + index, folder.name),
            **describe(plane),
            **({"RescaleSlope": slopes[index], "RescaleIntercept": intercepts[index]} if rescaled is None else {}),
            **attributes,
            **per_slice(index),
        }
        path = save(make_image(np.ascontiguousarray(image), **own), folder / name(index), syntax=syntax, meta=meta)
        finish(path)
        stack.append(Slice(image * float(slopes[index]) + float(intercepts[index]), plane))
    return stack


def write_frames(
    path: Path,
    stored: np.ndarray,
    where: Sequence[Plane | None],
    *,
    slope: float | Sequence[float] = 1.0,
    intercept: float | Sequence[float] = 0.0,
    measures_per_frame: bool = False,
    orientation_per_frame: bool = True,
    per_frame: Callable[[int], dict[str, object]] = lambda index: {},
    shared: dict[str, object] | None = None,
    indices: Callable[[int], list[int]] = lambda index: [1, index + 1],
    syntax: UID = ExplicitVRLittleEndian,
    **attributes: object,
) -> Stack:
    """Write all slices as the frames of one enhanced object (PS3.3 C.7.6.16), and return what they mean.

    Args:
        path: where to.
        stored: values as they stand in the file.
        where: a plane, or None, for each.
        slope, intercept: of all frames (shared) or of each.
        measures_per_frame, orientation_per_frame: state these for each frame, as some scanners do, or once.
        per_frame: functional groups of one frame.
        shared: functional groups of all frames.
        indices: values of the dimensions of one frame.
        syntax: transfer syntax.
        attributes: of the object.
    """
    slopes, intercepts = (np.broadcast_to(value, len(stored)) for value in (slope, intercept))
    common, groups = dict(shared or {}), []
    is_one = np.isscalar(slope) and np.isscalar(intercept)
    for index, plane in enumerate(where):
        own = {
            "FrameContentSequence": item(
                DimensionIndexValues=indices(index), StackID="1", InStackPositionNumber=index + 1
            )
        }
        if plane is not None:
            place = describe(plane)
            own["PlanePositionSequence"] = item(ImagePositionPatient=place["ImagePositionPatient"])
            turn = item(ImageOrientationPatient=place["ImageOrientationPatient"])
            measures = item(PixelSpacing=place["PixelSpacing"], SliceThickness=attributes.get("SliceThickness", 3))
            (own if orientation_per_frame else common)["PlaneOrientationSequence"] = turn
            (own if measures_per_frame else common)["PixelMeasuresSequence"] = measures
        values = item(RescaleSlope=slopes[index], RescaleIntercept=intercepts[index], RescaleType="US")
        (common if is_one else own)["PixelValueTransformationSequence"] = values
        frame = Dataset()
        frame.update(own | per_frame(index))
        groups.append(frame)
    top = {key: value for key, value in attributes.items() if key != "SliceThickness"}
    dataset = make_image(np.ascontiguousarray(stored), **top)
    dataset.SharedFunctionalGroupsSequence = item(**common)
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(groups)
    dataset.InstanceNumber = attributes.get("InstanceNumber", 1)
    save(dataset, path, syntax=syntax)
    return [
        Slice(image * float(slopes[index]) + float(intercepts[index]), plane)
        for index, (image, plane) in enumerate(zip(stored, where, strict=True))
    ]
