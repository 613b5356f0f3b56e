# SPDX-License-Identifier: Apache-2.0
"""DICOM Segmentation objects (PS3.3 A.51): write a label mask, read frames, lay them on image slices by geometry."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from bundle.pyraseg.dicom.headers import without_notices
from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.files import replacing

ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
LESION = Code("52988006", "SCT", "Lesion")
ORGANS = {
    "liver": Code("10200004", "SCT", "Liver"),
    "spleen": Code("78961009", "SCT", "Spleen"),
    "kidney": Code("64033007", "SCT", "Kidney"),
    "lung": Code("39607008", "SCT", "Lung"),
    "hippocampus": Code("5366008", "SCT", "Hippocampus"),
    "skin": Code("39937001", "SCT", "Skin"),
}
IN_PLANE_TOLERANCE = 0.1  # pixels by which a frame may miss the image's grid
DIRECTION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class SegmentClass:
    """What a label value stands for, as coded concepts (PS3.3 C.8.20.4)."""

    label: str
    category: Code
    type: Code
    region: Code | None = None

    @classmethod
    def organ(cls, name: str) -> "SegmentClass":
        """Describe an organ of the table `ORGANS`."""
        return cls(name, ANATOMICAL_STRUCTURE, _organ(name))

    @classmethod
    def lesion(cls, region: str, *, label: str = "lesion") -> "SegmentClass":
        """Describe a lesion of unknown nature in an organ of the table `ORGANS`."""
        return cls(label, ABNORMAL_STRUCTURE, LESION, _organ(region))


def _organ(name: str) -> Code:
    if name not in ORGANS:
        raise PyrasegError(f"There is no SNOMED code for {name!r} in the table; it has {', '.join(ORGANS)}.")
    return ORGANS[name]


@dataclass(frozen=True)
class SegmentationFrame:
    """One frame: the pixels of one segment on one plane, in patient coordinates (mm)."""

    segment_number: int
    position: np.ndarray  # (3,), centre of the first pixel
    row_cosine: np.ndarray  # (3,), direction of growing column index
    column_cosine: np.ndarray  # (3,), direction of growing row index
    pixel_spacing: tuple[float, float]  # between rows, between columns
    referenced_sop_instance_uid: str | None
    mask: np.ndarray  # (rows, columns) bool


@dataclass(frozen=True)
class SegmentationObject:
    """A BINARY segmentation; `segments` maps a segment number to its label."""

    path: Path
    segments: dict[int, str]
    frames: tuple[SegmentationFrame, ...]


@without_notices()  # highdicom's quote the patient's name
def write_segmentation(
    path: str | os.PathLike,
    mask: np.ndarray,
    source_datasets: Sequence[Dataset],
    classes: Sequence[SegmentClass],
    *,
    algorithm: tuple[str, str] | None = None,
    series_description: str = "Segmentation",
    deterministic_seed: int | None = None,
) -> None:
    """Write a BINARY segmentation whose segment number is the label value.

    Args:
        path: file to write; it appears whole or not at all.
        mask: (N, rows, columns) uint8, 0 for background; slice k belongs to `source_datasets[k]`, or to frame k of
            the one multi-frame source.
        source_datasets: the image slices, or one multi-frame image.
        classes: what the values 1, 2, ... stand for. Each is described, also where the mask does not hold it
            (segment numbers may have no gaps, PS3.3 C.8.20.4). A mask of zeros writes explicit empty frames.
        algorithm: name and version of the program that segmented; without it the segments count as manual.
        series_description: goes into the header.
        deterministic_seed: derive UIDs from it and the source, and take dates from the source, so that the same
            input gives the same bytes.

    Raises:
        PyrasegError: the mask does not fit the sources, holds an undeclared value, or the sources lack UIDs.
    """
    path = Path(path)
    source_datasets = [_without_empty_character_set(dataset) for dataset in source_datasets]
    source = source_datasets[0]
    _check_sources(path, mask, source_datasets, len(classes))
    entropy = None if deterministic_seed is None else [str(deterministic_seed), source.SOPInstanceUID]

    def uid(role: str) -> str:
        return generate_uid(entropy_srcs=entropy and [*entropy, role])

    segmentation = Segmentation(
        source_images=source_datasets,
        pixel_array=mask,
        segmentation_type="BINARY",
        segment_descriptions=[_describe(number, item, algorithm) for number, item in enumerate(classes, 1)],
        series_instance_uid=uid("series"),
        series_number=int(source.get("SeriesNumber") or 0) + 100,
        sop_instance_uid=uid("instance"),
        instance_number=1,
        manufacturer="Pyraseg",
        manufacturer_model_name="Pyraseg",
        software_versions=algorithm[1] if algorithm else "1",
        device_serial_number="1",
        content_label="SEGMENTATION",
        series_description=series_description,
        omit_empty_frames=bool(mask.any()),
    )
    if entropy:
        _fix_identity(segmentation, source, uid("dimensions"))
    with replacing(path) as partial:
        segmentation.save_as(partial)


def _without_empty_character_set(source: Dataset) -> Dataset:
    """Return a source that highdicom accepts: an empty Specific Character Set stands for the default one."""
    if source.get("SpecificCharacterSet", "default"):
        return source
    source = copy.deepcopy(source)  # pydicom's shallow copies share their elements
    del source.SpecificCharacterSet
    return source


def _check_sources(path: Path, mask: np.ndarray, sources: Sequence[Dataset], classes: int) -> None:
    first = sources[0]
    missing = [name for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
               if any(not dataset.get(name) for dataset in sources)]  # fmt: skip
    if missing:
        raise PyrasegError(
            f"Cannot write {path}: the source images have no {', '.join(missing)}, and a segmentation must refer to "
            "them. Write a copy of the series with generated UIDs and use that as the source."
        )
    frames = int(first.get("NumberOfFrames") or 1) if len(sources) == 1 else len(sources)
    expected = (frames, first.Rows, first.Columns)
    if mask.dtype != np.uint8 or mask.shape != expected:
        raise PyrasegError(
            f"Cannot write {path}: the mask is {mask.dtype} {mask.shape}, but the source images need uint8 {expected} "
            "(slices, rows, columns). Bring the mask back onto the original grid first."
        )
    if mask.max(initial=0) > classes:
        raise PyrasegError(f"Cannot write {path}: the mask holds the value {mask.max()}, but {classes} classes are "
                           "described. Describe every class, in the order of the values.")  # fmt: skip


def _describe(number: int, item: SegmentClass, algorithm: tuple[str, str] | None) -> SegmentDescription:
    identification = algorithm and hd.AlgorithmIdentificationSequence(
        name=algorithm[0], version=algorithm[1], family=Code("123110", "DCM", "Artificial Intelligence")
    )
    return SegmentDescription(
        segment_number=number,
        segment_label=item.label,
        segmented_property_category=item.category,
        segmented_property_type=item.type,
        algorithm_type="AUTOMATIC" if algorithm else "MANUAL",
        algorithm_identification=identification,
        anatomic_regions=[item.region] if item.region else None,
    )


def _fix_identity(segmentation: Dataset, source: Dataset, dimension_uid: str) -> None:
    """Replace what highdicom takes from the clock or from a random source."""
    date = source.get("ContentDate") or source.get("StudyDate") or "20000101"
    time = source.get("ContentTime") or source.get("StudyTime") or "000000"
    for element in list(segmentation.iterall()):
        if element.keyword == "DimensionOrganizationUID":
            element.value = dimension_uid
        elif element.keyword == "ContributionDateTime":
            element.value = f"{date}{time}"
    for part in ("InstanceCreation", "Content", "Series"):
        if f"{part}Date" in segmentation:
            setattr(segmentation, f"{part}Date", date)
            setattr(segmentation, f"{part}Time", time)


def read_segmentation(path: str | os.PathLike) -> SegmentationObject:
    """Read every frame of a BINARY segmentation with its place in the patient.

    Raises:
        PyrasegError: no segmentation, a type other than BINARY, or frames without a position.
    """
    path = Path(path)
    try:
        dataset = pydicom.dcmread(path)
    except (OSError, pydicom.errors.InvalidDicomError) as error:
        raise PyrasegError(f"{path} cannot be read as DICOM: {error}") from error
    kind = dataset.get("SegmentationType")
    if kind != "BINARY":
        found = f"of type {kind}" if kind else f"no segmentation (modality {dataset.get('Modality')})"
        raise PyrasegError(f"{path} is {found}. Only BINARY segmentation objects can be read; convert it to BINARY.")
    shared = dataset.get("SharedFunctionalGroupsSequence", [Dataset()])[0]
    masks = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns).astype(bool)
    groups = dataset.PerFrameFunctionalGroupsSequence
    pairs = enumerate(zip(groups, masks, strict=True), 1)
    frames = tuple(_frame(path, number, group, shared, mask) for number, (group, mask) in pairs)
    segments = {int(item.SegmentNumber): str(item.get("SegmentLabel", "")) for item in dataset.SegmentSequence}
    return SegmentationObject(path, segments, frames)


def _frame(path: Path, number: int, group: Dataset, shared: Dataset, mask: np.ndarray) -> SegmentationFrame:
    def macro(name: str) -> Dataset:
        for level in (group, shared):
            if level.get(name):
                return level[name][0]
        raise PyrasegError(f"Frame {number} of {path} has no {name}, so its place in the patient is unknown.")

    orientation = np.array(macro("PlaneOrientationSequence").ImageOrientationPatient, float)
    derivation = group.get("DerivationImageSequence") or shared.get("DerivationImageSequence") or []
    sources = [source for item in derivation for source in item.get("SourceImageSequence", [])]
    return SegmentationFrame(
        segment_number=int(macro("SegmentIdentificationSequence").ReferencedSegmentNumber),
        position=np.array(macro("PlanePositionSequence").ImagePositionPatient, float),
        row_cosine=orientation[:3],
        column_cosine=orientation[3:],
        pixel_spacing=tuple(float(v) for v in macro("PixelMeasuresSequence").PixelSpacing),
        referenced_sop_instance_uid=str(sources[0].ReferencedSOPInstanceUID) if len(sources) == 1 else None,
        mask=mask,
    )


def segmentation_to_slices(
    segmentation: SegmentationObject,
    positions: np.ndarray,
    row_cosine: np.ndarray,
    column_cosine: np.ndarray,
    pixel_spacing: tuple[float, float],
    shape: tuple[int, int],
) -> np.ndarray:
    """Lay the frames on image slices and return labels (N, rows, columns) uint8, value = segment number.

    A frame belongs to the slice whose plane is nearest along the normal, at most half a slice spacing away (half a
    pixel where there is one slice). Its pixels must fall on the slice's pixels; it may be flipped or cropped. The
    order of frames and the image instances that they refer to play no part.

    Args:
        segmentation: what `read_segmentation` returned.
        positions: (N, 3) first pixel of every slice, mm.
        row_cosine: (3,) direction along a row.
        column_cosine: (3,) direction along a column.
        pixel_spacing: mm between rows, between columns.
        shape: rows, columns.

    Raises:
        PyrasegError: a frame that matches no slice or lies on another grid, or segments that overlap.
    """
    positions = np.asarray(positions, float)
    axes = np.array([column_cosine, row_cosine], float)  # in the order of the array: rows, columns
    normal = np.cross(row_cosine, column_cosine)
    heights = positions @ normal
    gaps = np.diff(np.sort(heights))
    tolerance = 0.5 * (gaps.min() if gaps.size else min(pixel_spacing))
    labels = np.zeros((len(positions), *shape), np.uint8)
    for number, frame in enumerate(segmentation.frames, 1):
        where = f"Frame {number} of {segmentation.path}"
        if not frame.mask.any():
            continue
        if not 1 <= frame.segment_number <= 255:
            raise PyrasegError(f"{where} belongs to segment {frame.segment_number}; label values end at 255.")
        distances = np.abs(heights - frame.position @ normal)
        k = int(distances.argmin())
        if distances[k] > tolerance:
            raise PyrasegError(
                f"{where} lies {distances[k]:.2f} mm from the nearest image slice, more than half a slice "
                f"({tolerance:.2f} mm). It was drawn on other images; choose their series."
            )
        rows, columns = _grid_indices(where, frame, positions[k], axes, pixel_spacing, shape)
        target = labels[k][np.ix_(rows, columns)]
        clash = frame.mask & (target > 0) & (target != frame.segment_number)
        if clash.any():
            other = int(target[clash][0])
            raise PyrasegError(f"{where}: segments {other} and {frame.segment_number} overlap in {clash.sum()} pixels. "
                               "One label a pixel is possible; remove the overlap.")  # fmt: skip
        target[frame.mask] = frame.segment_number
        labels[k][np.ix_(rows, columns)] = target
    return labels


def _grid_indices(
    where: str,
    frame: SegmentationFrame,
    position: np.ndarray,
    axes: np.ndarray,
    pixel_spacing: tuple[float, float],
    shape: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the image row of every frame row and the image column of every frame column."""
    result = []
    start = axes @ (frame.position - position) / pixel_spacing
    for axis, direction in enumerate((frame.column_cosine, frame.row_cosine)):
        sign = float(direction @ axes[axis])
        spacing = frame.pixel_spacing[axis] / pixel_spacing[axis]
        exact = start[axis] + sign * spacing * np.arange(frame.mask.shape[axis])
        indices = np.rint(exact).astype(int)
        aligned = abs(abs(sign) - 1) < DIRECTION_TOLERANCE and np.abs(exact - indices).max() < IN_PLANE_TOLERANCE
        steps = np.abs(np.diff(indices))
        if not aligned or (steps != 1).any() or indices.min() < 0 or indices.max() >= shape[axis]:
            raise PyrasegError(
                f"{where} lies on another grid than the image ({frame.mask.shape[0]} x {frame.mask.shape[1]} pixels of "
                f"{frame.pixel_spacing[0]:g} x {frame.pixel_spacing[1]:g} mm against {shape[0]} x {shape[1]} of "
                f"{pixel_spacing[0]:g} x {pixel_spacing[1]:g} mm). Resample it to the image first."
            )
        result.append(indices)
    return result[0], result[1]
