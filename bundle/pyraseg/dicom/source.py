# SPDX-License-Identifier: Apache-2.0
"""The images that a segmentation or a structure set refers to, and what to do where their headers are incomplete."""

import copy
import hashlib
import re
import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pydicom.config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    UltrasoundImageStorage,
    VLPhotographicImageStorage,
    generate_uid,
)
from pydicom.valuerep import DA, TM

from bundle.pyraseg.core import PyrasegError, file_digest
from bundle.pyraseg.dicom.found import FoundFile, opened
from bundle.pyraseg.dicom.geometry import Plane, frame_planes, stack_geometry
from bundle.pyraseg.dicom.grids import grid_kind, unpack
from bundle.pyraseg.dicom.headers import frame_count, functional_group, transfer_syntax

#: What a reference to an image is made of (PS3.3 Table 10-11), its study and its series.
REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
#: Attributes of the patient and the study that must be there and may be empty (type 2, PS3.3 C.7.1.1 and C.7.2.1).
MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
#: What single-frame images of a modality are, where their SOP class is not stated.
SOP_CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "US": UltrasoundImageStorage,
    "XC": VLPhotographicImageStorage,
}


#: pydicom's validation is one switch for all threads: two that turn it off and on again at once would leave it off.
_VALIDATION = threading.RLock()


@contextmanager
def values_as_they_are() -> Generator[None]:
    """Let pydicom and highdicom read and copy values that break the standard, without a warning; one thread at a time.

    Their warnings quote what they complain of: a birth date, or a name that is a single word.
    """
    warnings.filterwarnings("ignore", message="The string .* is unlikely to represent the intended person name")
    with _VALIDATION, pydicom.config.disable_value_validation():
        yield


def read_sources(files: Sequence[str | Path], *, pixels: bool = False) -> list[Dataset]:
    """Return the headers of the images of a series, in the order of `files`, each file once.

    A found file whose header is complete is not opened for it.

    Attributes that may be empty are made so where they are absent or malformed; dates and times in the form of
    ACR-NEMA (1994.11.05, 11:20:00) are brought into today's. An empty SpecificCharacterSet is dropped: it means the
    default, and highdicom does not take it. A missing SliceThickness becomes the distance between the slices. Slices
    that were read as one stack although each has a frame of reference of its own get that of the first: what refers to
    them has one place for it.

    Args:
        files: the file of each slice; a multi-frame file may be repeated.
        pixels: read the pixels too.

    Raises:
        PyrasegError: the slices come from several multi-frame files, or a lone slice has no thickness.
    """
    unique = list(dict.fromkeys(files))
    if 1 < len(unique) < len(files):
        raise PyrasegError(
            f"The slices come from {len(unique)} multi-frame files, such as {unique[0]}, and one object cannot refer "
            "to several. Give each file as an input of its own."
        )
    with values_as_they_are():
        datasets = [_source(file, pixels) for file in unique]
        for dataset in datasets:
            if grid_kind(dataset) and not pixels:
                unpack(dataset, dataset)
        for dataset in datasets:
            for keyword in MAY_BE_EMPTY:
                setattr(dataset, keyword, _acceptable(keyword, dataset.get(keyword)))
            if "SpecificCharacterSet" in dataset and not dataset.SpecificCharacterSet:
                del dataset.SpecificCharacterSet
            if dataset.get("FrameOfReferenceUID") and datasets[0].get("FrameOfReferenceUID"):
                dataset.FrameOfReferenceUID = datasets[0].FrameOfReferenceUID
            if not dataset.file_meta.get("TransferSyntaxUID") and (syntax := transfer_syntax(dataset)):
                dataset.file_meta.TransferSyntaxUID = syntax
        _fill_thickness(datasets)
    return datasets


def _source(file: str | Path, pixels: bool) -> Dataset:
    if isinstance(file, FoundFile) and file.complete and not pixels:
        return file.header
    with opened(file) as (stream, _):
        return pydicom.dcmread(stream, force=True, stop_before_pixels=not pixels)


def _fill_thickness(datasets: Sequence[Dataset]) -> None:
    """Give single images in a patient a thickness, which PS3.3 C.7.6.16.2.1 wants of a segmentation."""
    if frame_count(datasets[0]) > 1:
        return  # `with_frames` knows which of its frames are a stack
    planes = [frame_planes(dataset)[0] for dataset in datasets]
    known = [plane for plane in planes if plane is not None]
    if len(known) < len(planes) or all(plane.slice_thickness for plane in known):
        return
    spacing = f"{_spacing(known):.6g}"
    for dataset in datasets:
        item = functional_group(dataset, 0, "PixelMeasuresSequence") or dataset
        if not item.get("SliceThickness"):
            item.SliceThickness = spacing


def _spacing(planes: Sequence[Plane]) -> float:
    """Return the distance between slices in mm.

    Raises:
        PyrasegError: there is only one.
    """
    geometry, _ = stack_geometry(planes)
    if geometry.slice_spacing is None:
        raise PyrasegError("its only slice has no SliceThickness, and no neighbor tells it. Set it in a copy.")
    return geometry.slice_spacing


def _acceptable(keyword: str, value: object) -> object:
    """Return a value as PS3.5 6.2 wants it, or nothing."""
    for ending, separators, kind in (("Date", "[./-]", DA), ("Time", ":", TM)):
        if keyword.endswith(ending):
            try:
                return kind(re.sub(separators, "", str(value or ""))) or ""
            except ValueError:
                return ""
    return value or ""


def with_frames(source: Dataset, frame_numbers: Sequence[int]) -> Dataset:
    """Return the header of a multi-frame image as if it held only some of its frames, in the order given.

    Orientation and pixel measures, which scanners state once or for each frame, are stated once; a missing
    SliceThickness becomes the distance between the frames. Of the functional groups nothing else is kept.

    Raises:
        PyrasegError: frames have no position in the patient, or are not parallel and of one spacing.
    """
    planes = [frame_planes(source)[number - 1] for number in frame_numbers]
    known = [plane for plane in planes if plane is not None]
    if len(known) < len(planes):
        raise PyrasegError(f"its {frame_count(source)} frames have no position in the patient, so nothing can refer to "
                           "them as slices. Convert it to an enhanced object with functional groups.")  # fmt: skip
    first = frame_numbers[0] - 1
    measures = _group(source, first, "PixelMeasuresSequence", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices")
    if not measures.get("SliceThickness"):
        measures.SliceThickness = f"{_spacing(known):.6g}"
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [_group(source, first, "PlaneOrientationSequence", "ImageOrientationPatient")]
    frames = []
    for number in frame_numbers:
        frame = Dataset()
        frame.PlanePositionSequence = [_group(source, number - 1, "PlanePositionSequence", "ImagePositionPatient")]
        frames.append(frame)
    header = Dataset()
    header.update({tag: source.get_item(tag) for tag in list(source.keys())})  # as they are, not converted
    header.file_meta = source.file_meta
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "NumberOfFrames"):
        if keyword in header:
            del header[keyword]
    header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence = [shared], frames
    header.NumberOfFrames = len(frames)
    return header


def as_single_images(source: Dataset, frame_numbers: Sequence[int]) -> list[Dataset]:
    """Return the header of a mosaic, see `grids.unpack`, as if each of some of its tiles were an image.

    All have the UID of the mosaic, which has no frames that anything could refer to.
    """
    images = []
    for number in frame_numbers:
        image = Dataset()
        image.update({tag: source.get_item(tag) for tag in list(source.keys())})  # as they are, not converted
        image.file_meta = source.file_meta
        for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "NumberOfFrames"):
            del image[keyword]
        plane = _group(source, number - 1, "PlanePositionSequence", "ImagePositionPatient")
        image["ImagePositionPatient"] = plane["ImagePositionPatient"]
        images.append(image)
    return images


def _group(source: Dataset, frame: int, group: str, *keywords: str) -> Dataset:
    """Return some attributes of the functional group of a frame, or of a single image."""
    origin = functional_group(source, frame, group) or source
    item = Dataset()
    for keyword in keywords:
        if origin.get(keyword) not in (None, ""):
            item[keyword] = copy.deepcopy(origin[keyword])
    return item


def missing_attributes(sources: Sequence[Dataset], *, placed: bool) -> list[str]:
    """Return the attributes that a reference to these images needs and some of them lack.

    Args:
        sources: headers of the images.
        placed: whether the images lie in a patient, so that they need a frame of reference.
    """
    required = [*REQUIRED, *(["FrameOfReferenceUID"] if placed else [])]
    return [name for name in required if any(not dataset.get(name) for dataset in sources)]


def complete(files: Sequence[str | Path], folder: Path, *, placed: bool) -> list[Dataset]:
    """Write a copy of a series whose headers lack UIDs, with generated ones, and return its datasets.

    The copy is a series of its own, for its instances are not the original ones; the study stays where it is known.
    The UIDs follow from the content of the files, so that a second run makes the same copy.

    Args:
        files: the file of each slice.
        folder: where to write, under the `copied_names`.
        placed: whether the images lie in a patient, so that they need a frame of reference.

    Raises:
        PyrasegError: the SOP class is missing and cannot be told from the modality.
    """
    datasets = read_sources(files, pixels=True)
    paths = [Path(file) for file in dict.fromkeys(files)]
    contents = [file_digest(path) for path in paths]
    series = hashlib.sha256("".join(contents).encode()).hexdigest()
    study = next((str(dataset.StudyInstanceUID) for dataset in datasets if dataset.get("StudyInstanceUID")), "")
    with values_as_they_are():
        for file, name, dataset, content in zip(paths, copied_names(files), datasets, contents, strict=True):
            dataset.SOPClassUID = dataset.get("SOPClassUID") or _sop_class(dataset, file)
            dataset.SOPInstanceUID = generate_uid(entropy_srcs=[series, content, file.name])
            dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[series, "series"])
            dataset.StudyInstanceUID = study or generate_uid(entropy_srcs=[series, "study"])
            if placed and not dataset.get("FrameOfReferenceUID"):
                dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[series, "frame of reference"])
            meta = FileMetaDataset()
            meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
            dataset.file_meta = meta
            dataset.save_as(folder / name, enforce_file_format=True)
            del dataset.PixelData
            if grid_kind(dataset):
                unpack(dataset, dataset)
    return datasets


def copied_names(files: Sequence[str | Path]) -> list[str]:
    """Return what the files of a series are called in a copy in one folder: their names, numbered if two share one."""
    names = [Path(file).name for file in dict.fromkeys(files)]
    if len({name.casefold() for name in names}) == len(names):
        return names
    digits = len(str(len(names)))
    return [f"{number:0{digits}}_{name}" for number, name in enumerate(names, 1)]


def _sop_class(dataset: Dataset, file: Path) -> UID:
    stored = dataset.file_meta.get("MediaStorageSOPClassUID")
    modality = str(dataset.get("Modality") or "")
    if not stored and modality not in SOP_CLASSES:
        raise PyrasegError(
            f"{file} has neither a SOPClassUID nor a modality that tells it (Modality is {modality or 'absent'}). "
            f"Set Modality to one of {', '.join(SOP_CLASSES)} in a copy of the series."
        )
    return UID(stored or SOP_CLASSES[modality])
