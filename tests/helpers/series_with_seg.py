# SPDX-License-Identifier: Apache-2.0
"""Small series with UIDs of their own, and a segmentation of one."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from tests.helpers.dicom_files import uid, write_series

MASK = np.pad(np.ones((1, 3, 4), np.uint8), ((0, 1), (2, 3), (1, 3)))  # 2 slices of 8 x 8


def write_study(folder: Path, name: str) -> list[Dataset]:
    """Write a series of two slices with UIDs of its own and return what was written."""
    own = {key: uid(name, key) for key in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    pixels = np.random.default_rng(len(name)).integers(0, 99, (2, 8, 8)).astype(np.int16)
    return [
        pydicom.dcmread(path)
        for path in write_series(
            folder, pixels, PatientID=name, SliceThickness=1, StudyDate="20200101", StudyTime="120000", **own
        )
    ]


def write_seg(path: Path, sources: list[Dataset]) -> None:
    for source in sources:
        source.PatientSex = source.PatientBirthDate = source.AccessionNumber = source.StudyID = ""
        source.ReferringPhysicianName = ""
    write_segmentation(path, MASK, sources, [SegmentClass.organ("liver")])
