# SPDX-License-Identifier: Apache-2.0
"""Write an RT Structure Set (PS3.3 A.19): the contours of a label mask, slice by slice."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import RTStructureSetStorage

from bundle.pyraseg.core import replacing, values_of
from bundle.pyraseg.dicom import (
    Geometry,
    reference_to,
    series_number,
    state_character_set,
)
from bundle.pyraseg.labels.contours import trace_polygons
from bundle.pyraseg.labels.derived import derived_object, item, referable

#: Bytes of a value whose length is told in 16 bits: no Explicit VR has longer decimal strings (PS3.5 7.1.2).
LONGEST_VALUE = 0xFFFE
STUDY_COMPONENT = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, retired; PS3.3 C.8.8.5 still names it


def write_structure_set(
    path: str | os.PathLike,
    mask: np.ndarray,
    source_images: Sequence[Dataset],
    geometry: Geometry,
    class_names: Sequence[str],
    *,
    frame_numbers: Sequence[int],
    colors: Sequence[Sequence[int]],
    algorithm: tuple[str, str],
    overlapping: bool = False,
) -> None:
    """Write the outlines of a label mask; ROI number is label value, and classes that were not found are listed too.

    Contours are of the type CLOSED_PLANAR, with keyholes for holes (see `trace_polygons`).

    Args:
        path: file to write; it appears whole or not at all.
        mask: (N, rows, columns) uint8, 0 for background; slice k belongs to `source_images[k]`.
        source_images: header of the image of each slice; a multi-frame image stands once for each of its slices.
        geometry: where the N slices lie.
        class_names: names of the classes 1, 2, ...
        frame_numbers: of each slice in its file, from 1.
        colors: RGB for each of them, 0 to 255.
        algorithm: name and version of the program that segmented.
        overlapping: the mask holds label values of regions, see `core.Structures`; the ROIs are these.

    Raises:
        PyrasegError: the sources lack UIDs.
    """
    path = Path(path)
    sources = referable(source_images, path)
    first = sources[0]
    dataset = _header(first, algorithm)
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(sources)]
    images = [reference_to(*pair) for pair in zip(sources, frame_numbers, strict=True)]
    dataset.StructureSetROISequence = []
    dataset.ROIContourSequence = []
    dataset.RTROIObservationsSequence = []
    for value, name in enumerate(class_names, 1):
        found = np.isin(mask, values_of(value, len(class_names), overlapping=overlapping))
        contours = _contours(found, geometry, images)
        dataset.StructureSetROISequence.append(
            item(
                ROINumber=value,
                ReferencedFrameOfReferenceUID=first.FrameOfReferenceUID,
                ROIName=name,
                ROIGenerationAlgorithm="AUTOMATIC",
                ROIGenerationDescription=" ".join(algorithm)[:64],
            )
        )
        roi = item(ROIDisplayColor=[int(part) for part in colors[value - 1]], ReferencedROINumber=value)
        if contours:
            roi.ContourSequence = contours
        dataset.ROIContourSequence.append(roi)
        observation = item(ObservationNumber=value, ReferencedROINumber=value, RTROIInterpretedType="ORGAN")
        observation.ROIInterpreter = ""
        dataset.RTROIObservationsSequence.append(observation)
    state_character_set(dataset)
    with replacing(path) as partial:
        dataset.save_as(partial, enforce_file_format=True)


def _header(source: Dataset, algorithm: tuple[str, str]) -> FileDataset:
    dataset = derived_object(source, RTStructureSetStorage, software_versions=algorithm[1])
    dataset.StructureSetDate, dataset.StructureSetTime = dataset.InstanceCreationDate, dataset.InstanceCreationTime
    dataset.Modality, dataset.OperatorsName = "RTSTRUCT", ""
    dataset.SeriesNumber, dataset.SeriesDescription = series_number(source, 200), "Contours"
    dataset.FrameOfReferenceUID = source.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = str(source.get("PositionReferenceIndicator") or "")
    dataset.StructureSetLabel, dataset.ApprovalStatus = "SEGMENTATION", "UNAPPROVED"
    return dataset


def _frame_of_reference(sources: Sequence[Dataset]) -> Dataset:
    first = sources[0]
    images = list({id(source): reference_to(source) for source in sources}.values())
    series = item(SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=images)
    study = item(
        ReferencedSOPClassUID=STUDY_COMPONENT,
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return item(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _contours(mask: np.ndarray, geometry: Geometry, images: Sequence[Dataset]) -> list[Dataset]:
    rows, columns = mask.shape[1:]
    corners = [(column, row, k) for k in (0, len(mask) - 1) for row in (-1, rows) for column in (-1, columns)]
    longest = max(len(_text(value)) for value in geometry.points(np.array(corners)).ravel())
    result = []
    for k in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
        for polygon in trace_polygons(mask[k], most=LONGEST_VALUE // (3 * (longest + 1))):
            points = geometry.points(np.column_stack([polygon[:, ::-1], np.full(len(polygon), k)]))
            result.append(
                item(
                    ContourImageSequence=[images[k]],
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(points),
                    ContourData=[_text(value) for value in points.ravel()],
                )
            )
    return result


def _text(value: float) -> str:
    return f"{value:.4f}"
