# SPDX-License-Identifier: Apache-2.0
"""The images that a segmentation or a structure set refers to, and a copy of them where their headers lack UIDs."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pydicom
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

from bundle.pyraseg.core import PyrasegError, file_digest
from bundle.pyraseg.dicom.found import FoundFile, opened
from bundle.pyraseg.dicom.geometry import Plane, frame_planes
from bundle.pyraseg.dicom.grids import grid_kind, unpack
from bundle.pyraseg.dicom.headers import transfer_syntax
from bundle.pyraseg.dicom.pixels import PIXEL_KEYWORDS
from bundle.pyraseg.dicom.sound import sound_uid

#: What a reference to an image is made of (PS3.3 Table 10-11), its study and its series.
REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
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


def read_sources(files: Sequence[str | Path]) -> list[Dataset]:
    """Return the headers of the images of a series as they are, one for each slice, in the order of `files`.

    A found file whose header is complete is not opened for it. The frames of a multi-frame file share one header.

    Args:
        files: the file of each slice.
    """
    headers = {file: _header(file) for file in dict.fromkeys(files)}
    return [headers[file] for file in files]


def _header(file: str | Path) -> Dataset:
    if isinstance(file, FoundFile) and file.complete:
        return file.header
    with opened(file) as (stream, _):
        header = pydicom.dcmread(stream, force=True, stop_before_pixels=True)
    if grid_kind(header):
        unpack(header, header)
    return header


def numbered(headers: Sequence[Dataset]) -> list[int]:
    """Return for each slice its frame in its image, from 1, where the frames of an image come one after the other."""
    counts: Counter[int] = Counter()
    numbers = []
    for header in headers:
        counts[id(header)] += 1
        numbers.append(counts[id(header)])
    return numbers


def slice_planes(headers: Sequence[Dataset], frame_numbers: Sequence[int]) -> list[Plane] | None:
    """Return the plane of each slice; None where one of them has no place in a patient.

    Args:
        headers: of the image of each slice.
        frame_numbers: for each slice its frame in its image, from 1.
    """
    found = {id(header): header for header in headers}
    planes = {key: frame_planes(header) for key, header in found.items()}
    placed = [planes[id(header)][number - 1] for header, number in zip(headers, frame_numbers, strict=True)]
    known = [plane for plane in placed if plane is not None]
    return known if len(known) == len(placed) else None


def missing_attributes(sources: Sequence[Dataset]) -> list[str]:
    """Return the attributes that a reference to these images needs and some of them lack."""
    return [name for name in REQUIRED if any(not dataset.get(name) for dataset in sources)]


def complete(files: Sequence[str | Path], folder: Path, *, placed: bool) -> list[Dataset]:
    """Write a copy of a series whose headers lack UIDs, with generated ones, and return the headers of `files` in it.

    The copy is a series of its own, for its instances are not the original ones; the study stays where it is known.
    The UIDs follow from the content of the files, so that a second run makes the same copy.

    Args:
        files: the file of each slice.
        folder: where to write, under the `copied_names`.
        placed: whether the images lie in a patient, so that they need a frame of reference.

    Raises:
        PyrasegError: the SOP class is missing and cannot be told from the modality.
    """
    unique = list(dict.fromkeys(files))
    contents = [file_digest(Path(file)) for file in unique]
    series = hashlib.sha256("".join(contents).encode()).hexdigest()
    headers: dict[str | Path, Dataset] = {}
    study = frame = ""
    for file in unique:
        header = _header(file)
        study = study or sound_uid(header.get("StudyInstanceUID"))
        frame = frame or sound_uid(header.get("FrameOfReferenceUID"))
    for file, name, content in zip(unique, copied_names(files), contents, strict=True):
        path = Path(file)
        with opened(file) as (stream, _):
            dataset = pydicom.dcmread(stream, force=True)
        dataset.SOPClassUID = sound_uid(dataset.get("SOPClassUID")) or _sop_class(dataset, path)
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[series, content, path.name])
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[series, "series"])
        dataset.StudyInstanceUID = study or generate_uid(entropy_srcs=[series, "study"])
        if placed or frame:
            dataset.FrameOfReferenceUID = frame or generate_uid(entropy_srcs=[series, "frame of reference"])
        meta = FileMetaDataset()
        if syntax := transfer_syntax(dataset):
            meta.TransferSyntaxUID = syntax
        dataset.file_meta = meta
        dataset.save_as(folder / name, enforce_file_format=True)
        for keyword in PIXEL_KEYWORDS:
            if keyword in dataset:
                del dataset[keyword]
        if grid_kind(dataset):
            unpack(dataset, dataset)
        headers[file] = dataset
    return [headers[file] for file in files]


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
