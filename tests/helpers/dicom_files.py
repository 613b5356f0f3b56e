# SPDX-License-Identifier: Apache-2.0
"""Write small, real DICOM files for tests: one image, a series of slices, an enhanced multi-frame object."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    generate_uid,
)

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.series import read_series

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
#: What a SEG takes from its source, as `write_image` leaves it out.
PATIENT = dict.fromkeys(["PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "ReferringPhysicianName"], "")
PATIENT |= {"StudyDate": "20240101", "StudyTime": "120000", "SeriesNumber": 1}


def uid(*words: object) -> UID:
    """Return the same UID for the same words."""
    return generate_uid(entropy_srcs=[str(word) for word in words])


def item(**attributes: object) -> DicomSequence:
    """Return a sequence of one item."""
    dataset = Dataset()
    dataset.update(attributes)
    return DicomSequence([dataset])


def lut_item(descriptor: Sequence[int], data: Sequence[int] | bytes, **attributes: object) -> DicomSequence:
    """Return a LUT sequence of one item; numbers are written as US, bytes as OW, a negative start as SS."""
    sequence = item(LUTDescriptor=list(descriptor), LUTData=data, **attributes)
    sequence[0]["LUTDescriptor"].VR = "SS" if descriptor[1] < 0 else "US"
    sequence[0]["LUTData"].VR = "OW" if isinstance(data, bytes) else "US"
    return sequence


def make_image(pixels: np.ndarray | bytes, **attributes: object) -> Dataset:
    """Build a single- or multi-frame gray data set from (rows, columns) or (frames, rows, columns).

    Keyword arguments are DICOM attributes; they override the defaults, and None removes one. Pixels given as bytes are
    stored as they are, with the attributes that describe them.
    """
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = uid("study")
    dataset.SeriesInstanceUID = uid("series")
    dataset.FrameOfReferenceUID = uid("frame of reference")
    dataset.PatientName, dataset.PatientID = "Secret^Name", "SECRET-ID"
    dataset.Modality = "CT"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    if isinstance(pixels, bytes):
        dataset.BitsAllocated, dataset.PixelRepresentation, dataset.PixelData = 8, 0, pixels
    else:
        dataset.Rows, dataset.Columns = pixels.shape[-2:]
        if pixels.ndim == 3:
            dataset.NumberOfFrames = len(pixels)
        dataset.BitsAllocated = pixels.dtype.itemsize * 8
        if pixels.dtype.kind == "f":
            name = {4: "FloatPixelData", 8: "DoubleFloatPixelData"}[pixels.dtype.itemsize]
            setattr(dataset, name, pixels.tobytes())
        else:
            dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
            dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        if value is None:
            if name in dataset:
                delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OB" if dataset.BitsAllocated <= 8 else "OW"
        if "BitsStored" not in dataset:
            dataset.BitsStored = dataset.BitsAllocated
        dataset.HighBit = dataset.BitsStored - 1
    return dataset


def save(dataset: Dataset, path: Path, *, syntax: UID = ExplicitVRLittleEndian, meta: bool = True) -> Path:
    """Write a data set; compressed syntaxes are encoded by pydicom, and ``meta=False`` leaves preamble and header out.

    Words of two bytes are swapped for big endian, in pixel data only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not meta:
        dcmwrite(path, dataset, implicit_vr=True, little_endian=True, enforce_file_format=False)
        return path
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID") or CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or uid("media")
    if syntax.is_encapsulated:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(syntax, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian and dataset.BitsAllocated == 16:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "u2").byteswap().tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_image(path: Path, pixels: np.ndarray | bytes, **attributes: object) -> Path:
    """Write one gray image, or one described by attributes, as explicit little endian."""
    return save(make_image(pixels, **attributes), path)


def write_series(
    folder: Path,
    pixels: np.ndarray,
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float] = (1.0, 1.0),
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    slice_step: float | Sequence[float] = 1.0,
    names: Sequence[str] | None = None,
    syntax: UID = ExplicitVRLittleEndian,
    meta: bool = True,
    per_slice: Callable[[int], dict[str, object]] = lambda index: {},
    **attributes: object,
) -> list[Path]:
    """Write a series of single-frame CT files, stored values (N, rows, columns), and return their paths in slice order.

    Args:
        folder: where to; it is made.
        pixels: stored values; HU with the default RescaleSlope 1 and RescaleIntercept 0.
        orientation: row cosine, then column cosine.
        spacing: (between rows, between columns), mm.
        origin: position of slice 0.
        slice_step: mm along the normal, or the vector from a slice to the next (a tilt).
        names: file names in slice order, by default slice_000.dcm and so on.
        syntax: transfer syntax.
        meta: write preamble and file meta header.
        per_slice: further attributes of one slice, which override the others.
        attributes: further attributes of all slices.
    """
    normal = np.cross(orientation[:3], orientation[3:])
    step = normal * slice_step if np.isscalar(slice_step) else np.asarray(slice_step, dtype=float)
    paths = []
    for index, image in enumerate(pixels):
        name = names[index] if names else f"slice_{index:03d}.dcm"
        own = {
            "ImagePositionPatient": (np.asarray(origin, dtype=float) + index * step).tolist(),
            "ImageOrientationPatient": list(orientation),
            "PixelSpacing": list(spacing),
            "RescaleSlope": 1,
            "RescaleIntercept": 0,
            "InstanceNumber": index + 1,
            "SOPInstanceUID": uid(folder, name),
            **attributes,
            **per_slice(index),
        }
        paths.append(save(make_image(image, **own), folder / name, syntax=syntax, meta=meta))
    return paths


def write_enhanced(
    path: Path,
    pixels: np.ndarray,
    positions: np.ndarray,
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float] = (1.0, 1.0),
    shared: dict[str, object] | None = None,
    per_frame: Callable[[int], dict[str, object]] = lambda index: {},
    syntax: UID = ExplicitVRLittleEndian,
    **attributes: object,
) -> Path:
    """Write an enhanced multi-frame CT, stored values (N, rows, columns), with positions (N, 3) per frame.

    ``shared`` and ``per_frame`` add functional groups: names of sequences with values from :func:`item`.
    """
    dataset = make_image(pixels, SOPClassUID=EnhancedCTImageStorage, **attributes)
    groups = {
        "PlaneOrientationSequence": item(ImageOrientationPatient=list(orientation)),
        "PixelMeasuresSequence": item(PixelSpacing=list(spacing)),
    }
    dataset.SharedFunctionalGroupsSequence = item(**groups, **(shared or {}))
    frames = []
    for index, position in enumerate(positions):
        frame = Dataset()
        frame.PlanePositionSequence = item(ImagePositionPatient=[float(v) for v in position])
        frame.update(per_frame(index))
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    return save(dataset, path, syntax=syntax)


def refusal(path, **options):
    """Return why a series is refused; the message tells nothing of the patient."""
    with pytest.raises(PyrasegError) as error:
        read_series(path, **options)
    message = str(error.value)
    assert "Secret" not in message
    assert "SECRET" not in message
    return message
