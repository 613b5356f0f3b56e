# SPDX-License-Identifier: Apache-2.0
"""Write RTSTRUCT files with pydicom alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from tests.helpers.dicom_files import item


def write_structure_set(
    path: Path,
    rois: dict[str, Sequence[np.ndarray | tuple[np.ndarray, str]]],
    *,
    series_uid: str,
    frame_of_reference_uid: str,
    codes: dict[str, tuple[str, str]] | None = None,
) -> Path:
    """Write ROIs by name: contours (n, 3) in LPS mm, CLOSED_PLANAR or of the type that stands beside them."""
    path.parent.mkdir(exist_ok=True)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Modality, dataset.StructureSetLabel = "RTSTRUCT", "TEST"
    study = item(RTReferencedSeriesSequence=item(SeriesInstanceUID=series_uid))
    dataset.ReferencedFrameOfReferenceSequence = item(
        FrameOfReferenceUID=frame_of_reference_uid, RTReferencedStudySequence=study
    )
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    for number, (name, contours) in enumerate(rois.items(), 3):
        roi = item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame_of_reference_uid)
        dataset.StructureSetROISequence.append(roi[0])
        observation = item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType="ORGAN")[0]
        if name in (codes or {}):
            scheme, value = codes[name]
            code = item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning="x")
            observation.RTROIIdentificationCodeSequence = code
        dataset.RTROIObservationsSequence.append(observation)
        sequence = []
        for contour in contours:
            points, kind = contour if isinstance(contour, tuple) else (contour, "CLOSED_PLANAR")
            data = [f"{value:.4f}" for value in np.ravel(points)]
            sequence.append(item(ContourGeometricType=kind, NumberOfContourPoints=len(points), ContourData=data)[0])
        dataset.ROIContourSequence.append(item(ReferencedROINumber=number, ContourSequence=sequence)[0])
    dataset.save_as(path, enforce_file_format=True)
    return path
