# SPDX-License-Identifier: Apache-2.0
"""Find the image series at a path, from headers alone, and count what else lies there."""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from os.path import commonpath
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.config import IGNORE
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, MediaStorageDirectoryStorage

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.apart import Member, patient_of, told_apart
from bundle.pyraseg.dicom.descriptions import NAMING, NAMING_TAGS, description_of, hide_names
from bundle.pyraseg.dicom.differences import PHASES, SECONDARY_CAPTURE
from bundle.pyraseg.dicom.found import FoundFile, Stamp, as_file, opened
from bundle.pyraseg.dicom.frame import counted
from bundle.pyraseg.dicom.grids import grid_kind, unpack
from bundle.pyraseg.dicom.headers import forget_malformed, frame_count, frame_value, parse
from bundle.pyraseg.dicom.private import TAGS, standardize
from bundle.pyraseg.dicom.uptake import PET_KEYWORDS, PRIVATE_TAGS
from bundle.pyraseg.dicom.views import KEYWORDS as VIEW_KEYWORDS
from bundle.pyraseg.dicom.views import TOMOGRAPHIC, split_views, view_of
from bundle.pyraseg.dicom.wanted import ChosenPath, is_meant

LOGGER = logging.getLogger(__name__)

NON_IMAGES = ("SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "SEG", "REG", "FID", "DOC")
LONGEST_NAME = 60  # characters of what a series is called
SCOUT_TYPES = {"LOCALIZER", "SCOUT"}
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # pydicom 3.0 lacks label maps
#: Modalities by what the names of their SOP classes have in front of "Image Storage".
IMPLIED = {
    "CT": "CT", "MR": "MR", "Positron Emission Tomography": "PT", "PET": "PT", "Nuclear Medicine": "NM",
    "Ultrasound": "US", "Ultrasound Multi-frame": "US", "Computed Radiography": "CR",
    "Digital X-Ray": "DX", "Digital Mammography X-Ray": "MG",
}  # fmt: skip
# All that the scan keeps: no name or identity of a patient among it, see `hide_names`.
_HEADER = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality Manufacturer "
    "ManufacturerModelName BodyPartExamined AnatomicRegionSequence PatientPosition PresentationIntentType "
    "BurnedInAnnotation LossyImageCompression SliceThickness ImagerPixelSpacing RescaleType InstanceNumber "
    "InConcatenationNumber NumberOfFrames Rows Columns SamplesPerPixel PhotometricInterpretation PresentationLUTShape "
    "ImagePositionPatient ImageOrientationPatient PixelSpacing SpacingBetweenSlices "
    "DetectorInformationSequence SliceVector "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence SeriesDescription "
    "CardiacNumberOfImages NominalCardiacTriggerDelayTime"
)
#: Reading the pixels says what is wrong in them.
_RESCALING = ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence")
HEADER_KEYWORDS = (*PHASES, *_HEADER.split(), *VIEW_KEYWORDS, *_RESCALING, *PET_KEYWORDS.split(), *PRIVATE_TAGS)
#: What no file needs to be read.
DISPENSABLE = frozenset(map(Tag, (*_RESCALING, *PET_KEYWORDS.split(), *PRIVATE_TAGS, *TAGS)))


@dataclass(frozen=True)
class Series:
    """Hold the files of one series, in the order of their names.

    ``uid`` chooses the series in ``read_series``. It is the Series Instance UID, ``instance_uid``; where several series
    have the same, that with ``:1``, ``:2`` and so on behind it; and a made-up ``no-uid:<folder>:<number>`` where the
    files have none. ``headers`` has no pixels. ``stamps`` tell whether a file has changed since, ``patient`` is a hash
    of what names the patient, or nothing. A view is a series of its own: ``view_of`` is the UID of the one that it
    stands in, ``view`` what it is, as in ``L_MLO``, where its header says that.
    """

    uid: str
    instance_uid: str
    study_uid: str
    modality: str
    files: tuple[Path, ...]
    frames: int
    headers: tuple[Dataset, ...] = field(repr=False, compare=False)
    stamps: tuple[Stamp, ...] = field(repr=False, compare=False)
    patient: str = field(repr=False)
    view_of: str = ""
    view: str = ""

    @property
    def has_uid(self) -> bool:
        """Return whether a UID stands for the series, and for no other one beside it."""
        return self.uid == self.instance_uid

    @property
    def found(self) -> list[FoundFile]:
        """Return the files with their headers, which `find_series` and `read_series` take instead of paths."""
        members = zip(self.files, self.headers, self.stamps, strict=True)
        return [
            FoundFile.of(file, header, stamp, patient=self.patient, complete=False) for file, header, stamp in members
        ]

    @property
    def number(self) -> str:
        """Return the number that scanners give a series of a study, or nothing; a text there might be a name."""
        stated = (str(header.get("SeriesNumber") or "").strip() for header in self.headers)
        return next((number for number in stated if re.fullmatch(r"[+-]?[0-9]+(\.0*)?", number, re.ASCII)), "")

    @property
    def description(self) -> str:
        """Return what the header calls the series, without names of patients, or nothing."""
        return next(filter(None, map(description_of, self.headers)), "")

    @property
    def called(self) -> str:
        """Return number and description as a part of a file's name: ``5_portal_venous``; or nothing."""
        text = re.sub(r"[^\w.+-]+", "_", f"{self.number} {self.description}")
        return re.sub(r"_{2,}", "_", text)[:LONGEST_NAME].strip("._- ")

    def is_meant(self, wanted: Sequence[str]) -> bool:
        """Return whether the series is one of those that texts stand for, see `wanted.is_meant`."""
        return is_meant(
            wanted, uids=(self.uid, self.instance_uid, self.view_of), number=self.number, description=self.description
        )

    def __str__(self) -> str:
        sizes = sorted({f"{header.Rows}x{header.Columns}" for header in self.headers})
        listed = sizes[0] if len(sizes) == 1 else f"{len(sizes)} sizes"
        what = " ".join(filter(None, [self.modality or "no modality", self.view.replace("_", " ")]))
        what += f", {counted(self.frames, 'image' if self.view_of else 'slice')} of {listed}"
        called = f", number {self.number}" * bool(self.number) + f', "{self.description}"' * bool(self.description)
        return f"{self.uid} ({what}{called})"


@dataclass(frozen=True)
class Scan:
    """Hold what lies at a path: its image series, and the files that are none by the reason to skip them."""

    path: Path
    series: tuple[Series, ...]
    skipped_files: dict[str, tuple[Path, ...]]

    @property
    def label_objects(self) -> tuple[Path, ...]:
        """Return the files that may label a series: SEG and RTSTRUCT objects."""
        reasons = ("SEG object", "RTSTRUCT object")
        return tuple(sorted(file for reason in reasons for file in self.skipped_files.get(reason, ())))

    @property
    def skipped(self) -> Counter[str]:
        """Return how many files were skipped for which reason."""
        return Counter({reason: len(files) for reason, files in self.skipped_files.items()})


def find_series(path: str | Path | Sequence[str | Path], *, keywords: Iterable[str] = ()) -> Scan:
    """Find the image series in a folder and its sub-folders, in a single file of any name, or among given files.

    Files count as DICOM by their content, with or without preamble and meta header. Scouts, screen captures, and
    objects that are no images (SR, SEG, RTSTRUCT ...) are skipped and counted. Files without a Series Instance UID
    belong together where folder, study, frame of reference, modality, series number, size and orientation are the
    same; without a position each is a series of its own.

    Args:
        path: a folder, a file, or several files. Those that a scan has found are not opened again.
        keywords: attributes to keep in the headers, besides those that reading needs.

    Raises:
        PyrasegError: the path does not exist, or there is no image; the message says what was found instead.
    """
    given = sorted(map(as_file, [path] if isinstance(path, str | Path) else path), key=Path)
    absent = [path for path in given if not Path(path).exists()]
    if absent:
        raise PyrasegError(f"{absent[0]} does not exist. Give the folder of a DICOM series or a DICOM file.")
    path = Path(given[0] if len(given) == 1 else commonpath(given))
    files = given
    if len(given) == 1 and path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        raise PyrasegError(f"{path} is an empty folder. Give the folder of a DICOM series or a DICOM file.")
    scan = scan_files(files, root=path, keywords=keywords)
    found = ", ".join(f"{count} {reason}" for reason, count in scan.skipped.items())
    if found:
        LOGGER.info("%s: skipped %s", path, found)
    if not scan.series:
        raise PyrasegError(f"{path} holds no image that can be read. Found instead: {found}. Check the path.")
    return scan


def scan_files(files: Sequence[Path | FoundFile | ChosenPath], *, root: Path, keywords: Iterable[str] = ()) -> Scan:
    """Sort files into series as `find_series` does, which also tells what counts; there may be none.

    Args:
        files: what to sort.
        root: a folder above the files, or the only file.
        keywords: attributes to keep in the headers, besides those that reading needs.
    """
    wanted = [*HEADER_KEYWORDS, *keywords]
    groups: dict[tuple, list[Member]] = defaultdict(list)
    skipped: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        if isinstance(file, FoundFile) and (file.complete or set(wanted) <= set(HEADER_KEYWORDS)):
            found, reason = Member(Path(file), _without_names(file.header, wanted), file.stamp, file.patient), ""
            standardize(found.header)
        else:
            found, reason = _read_header(Path(file), wanted)
        if found is None:
            skipped[reason].append(Path(file))
        else:
            groups[_series_key(found.file, found.header)].append(found)
    return Scan(root, _name(root, groups), {reason: tuple(names) for reason, names in sorted(skipped.items())})


def _read_header(file: Path, keywords: Sequence[str | int]) -> tuple[Member | None, str]:
    """Return the file with its header, or None and the reason to skip it."""
    try:
        with opened(file) as (stream, stamp):
            start = stream.read(132)
            if start[128:] != b"DICM" and not _looks_like_elements(start):
                return None, "not DICOM"
            stream.seek(0)
            tags = _tags_of(tuple(keywords))
            header = pydicom.dcmread(stream, force=True, stop_before_pixels=True, specific_tags=tags)
            forget_malformed(header, DISPENSABLE)
            parse(header)
            parse(header.file_meta)
            standardize(header)
            if grid_kind(header):
                _unpack(header, stream)
        reason = _reason_to_skip(header)
        if reason:
            return None, reason
        _ = int(header.Rows), int(header.Columns), frame_count(header)  # else they would fail later, less clearly
        _series_key(file, header)
        patient = patient_of(header)
        return Member(file, _without_names(header, keywords), stamp, patient), ""
    except Exception as error:  # Damaged files make pydicom raise nearly every type there is; they are counted.
        LOGGER.warning("%s: cannot be read as DICOM (%s)", file, type(error).__name__)
        return None, "unreadable"


@cache
def _tags_of(keywords: tuple[str | int, ...]) -> list[BaseTag]:
    return [*map(Tag, (*keywords, *NAMING)), *TAGS]


@cache
def _dropped(keywords: tuple[str | int, ...]) -> frozenset[BaseTag]:
    return NAMING_TAGS.difference(map(Tag, keywords))


def _without_names(header: Dataset, keywords: Sequence[str | int]) -> Dataset:
    """Return a header without names and IDs, in its description too, but for what is asked for: a hash is kept."""
    hide_names(header)
    for tag in header.keys() & _dropped(tuple(keywords)):
        del header[tag]
    return header


def _unpack(header: Dataset, stream: BinaryIO) -> None:
    """Give a mosaic or a grid frames; one that cannot be unpacked stays as it is, and is refused when it is read."""
    stream.seek(0)
    complete = pydicom.dcmread(stream, force=True, stop_before_pixels=True)
    with suppress(PyrasegError):
        unpack(header, complete)


def _looks_like_elements(start: bytes) -> bool:
    """Return whether bytes may be a data set without preamble: it opens with a low element of group 2 or 8."""
    return (start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00") or start[:3] == b"\x00\x08\x00"


def _reason_to_skip(header: Dataset) -> str:
    """Return why a DICOM object is no image to read, or nothing."""
    modality, sop_class = str(header.get("Modality") or ""), str(header.get("SOPClassUID") or "")
    if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return "DICOMDIR"
    if modality in NON_IMAGES or sop_class in SEGMENTATIONS:
        return f"{modality or 'SEG'} object"
    if not header.get("Rows") or not header.get("Columns"):
        known = modality or sop_class or header.file_meta.get("MediaStorageSOPClassUID")
        return f"{modality} object without an image".strip() if known else "not DICOM"
    image_type = header.get("ImageType") or []
    types = {str(value).strip().upper() for value in ([image_type] if isinstance(image_type, str) else image_type)}
    if types & SCOUT_TYPES:
        return "localizer"
    captured = sop_class.startswith(SECONDARY_CAPTURE) and modality in TOMOGRAPHIC
    if "SCREEN SAVE" in types or (captured and not frame_value(header, 0, "ImagePositionPatient")):
        return "screen capture"
    return ""


def _series_key(file: Path, header: Dataset) -> tuple:
    """Return what files of one series have in common."""
    if header.get("SeriesInstanceUID"):
        return (str(header.SeriesInstanceUID),)
    if not frame_value(header, 0, "ImagePositionPatient"):
        return ("", str(file.parent), str(file))
    orientation = frame_value(header, 0, "ImageOrientationPatient")
    cosines = orientation if isinstance(orientation, MultiValue) else []
    names = ("StudyInstanceUID", "FrameOfReferenceUID", "Modality", "SeriesNumber", "Rows", "Columns")
    shared = (str(header.get(name) or "") for name in names)
    return ("", str(file.parent), *shared, *(f"{float(cosine):.2f}" for cosine in cosines))


def _name(path: Path, groups: dict[tuple, list[Member]]) -> tuple[Series, ...]:
    """Build the series, and make a name up where no UID stands for one alone."""
    series, unnamed = [], Counter()
    for (uid, *_), members in groups.items():
        if not uid:
            folder = members[0].file.parent
            label = folder.relative_to(path).as_posix() if path.is_dir() and folder != path else folder.name
            unnamed[label] += 1
            series.append(_series(f"no-uid:{label}:{unnamed[label]}", "", members))
            continue
        found = told_apart(uid, members)
        for number, own in enumerate(found, 1):
            name = uid if len(found) == 1 else f"{uid}:{number}"
            views = split_views(own)
            if len(views) == 1:
                series.append(_series(name, uid, own))
                continue
            for place, view in enumerate(views, 1):
                made = _series(f"{name}:{place}", uid, view)
                series.append(replace(made, view_of=name, view=view_of(made.headers[0])))
    return tuple(series)


def _series(uid: str, instance_uid: str, members: Sequence[Member]) -> Series:
    files, headers, stamps, patients = zip(*members, strict=True)
    study = str(headers[0].get("StudyInstanceUID") or "")
    frames = sum(map(frame_count, headers))
    return Series(uid, instance_uid, study, _modality(headers[0]), files, frames, headers, stamps, patients[0])


def _modality(header: Dataset) -> str:
    """Return the modality, by the SOP class where it is not stated."""
    if stated := header.get("Modality"):
        return str(stated)
    name = UID(str(header.get("SOPClassUID") or ""), validation_mode=IGNORE).name
    return next((modality for words, modality in IMPLIED.items() if f"{words} Image Storage" in name), "")
