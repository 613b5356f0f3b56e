# SPDX-License-Identifier: Apache-2.0
"""Image series in every orientation as data sets in memory, their grid, and a mask that shows every wrong turn."""

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from bundle.pyraseg.dicom.geometry import Geometry
from bundle.pyraseg.labels.references import ImageGrid

SPACING = (1.5, 0.8)  # rows, columns
SHAPE = (4, 14, 11)
TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0], [0.48, 0.64, 0.6]])  # an exact rotation
STACKS = {
    "axial": ([1, 0, 0], [0, 1, 0], [0, 0, 3]),
    "reversed": ([1, 0, 0], [0, 1, 0], [0, 0, -3]),
    "prone": ([-1, 0, 0], [0, -1, 0], [0, 0, 3]),
    "coronal": ([1, 0, 0], [0, 0, -1], [0, 3, 0]),
    "sagittal": ([0, 1, 0], [0, 0, -1], [3, 0, 0]),
    "oblique": (TURN[:, 0], TURN[:, 1], 3 * TURN[:, 2]),
    "tilted": ([1, 0, 0], [0, 0.96, 0.28], [0, 0, 3]),
}
REGULAR = [stack for stack in STACKS if stack != "tilted"]


def make_sources(stack: str, count: int = SHAPE[0]) -> list[Dataset]:
    """Return the slices of a CT, without pixels; highdicom and we take them as the source of a segmentation."""
    row, column, step = (np.array(v, float) for v in STACKS[stack])
    study, series, frame = (generate_uid() for _ in range(3))
    result = []
    for k in range(count):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.PatientID = ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.StudyID = ""
        ds.StudyDate, ds.StudyTime, ds.ReferringPhysicianName, ds.Modality = "20240101", "120000", "", "CT"
        ds.Rows, ds.Columns, ds.SeriesNumber, ds.InstanceNumber = *SHAPE[1:], 1, k + 1
        ds.ImagePositionPatient = [round(float(v), 6) for v in np.array([-20, 30, 100]) + k * step]
        ds.ImageOrientationPatient = [*row, *column]
        ds.PixelSpacing, ds.SliceThickness = list(SPACING), 3
        result.append(ds)
    return result


def grid_of(sources: list[Dataset], **changes: object) -> ImageGrid:
    """Return the grid of the slices in the order in which they are given."""
    first = sources[0]
    orientation = np.array(first.ImageOrientationPatient, float)
    values = {
        "shape": (len(sources), first.Rows, first.Columns),
        "geometry": Geometry(
            np.array([ds.ImagePositionPatient for ds in sources], float),
            *np.split(orientation, 2),
            tuple(map(float, first.PixelSpacing)),
        ),
        "series_uid": str(first.SeriesInstanceUID),
        "frame_of_reference_uid": str(first.FrameOfReferenceUID),
        "sop_instance_uids": tuple(str(ds.SOPInstanceUID) for ds in sources),
        "frame_numbers": (1,) * len(sources),
    }
    return ImageGrid(**{**values, **changes})


def letter_f() -> np.ndarray:
    """Return a mask that no flip or transposition maps onto itself, different in every slice; class 2 is missing."""
    mask = np.zeros(SHAPE, np.uint8)
    for k in range(SHAPE[0]):
        mask[k, 2:12, 2] = 1
        mask[k, 2, 2 : 9 - k] = 1
        mask[k, 6, 2 : 6 - k % 2] = 3
    return mask
