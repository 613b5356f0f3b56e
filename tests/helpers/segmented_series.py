# SPDX-License-Identifier: Apache-2.0
"""Predictions about a letter F and about the phantom, and the truth about them from the image files alone.

The truth is made of the files by pydicom and the formula of PS3.3 C.7.6.2.1.1.
"""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage

from bundle.pyraseg.inference.prediction import Prediction
from bundle.pyraseg.inference.writers.dicom_objects import (
    Algorithm,
    SegmentationWriter,
    SourceImages,
    StructureSetWriter,
)
from bundle.pyraseg.transforms.reader import MedicalImageReader
from bundle.pyraseg_tools.datasets.phantom.cases import PLANS
from tests.helpers.dicom_files import AXIAL, CORONAL, SAGITTAL

NAMES = ["background", "liver", "lesion", "spleen", "kidney"]
TERMINOLOGY = {
    "liver": {"type": ["10200004", "SCT", "Liver"]},
    "lesion": {
        "category": ["49755003", "SCT", "Morphologically Abnormal Structure"],
        "type": ["52988006", "SCT", "Lesion"],
        "region": ["10200004", "SCT", "Liver"],
        "modifier": ["24028007", "SCT", "Right"],
    },
    "spleen": {"type": ["78961009", "SCT", "Spleen"]},
    "kidney": {"type": ["64033007", "SCT", "Kidney"]},
}
SPACING = (0.9, 0.7)
PHANTOMS = {plan: next(i for i, p in enumerate(PLANS) if plan in p.traits) for plan in
            ("reversed", "oblique", "wide", "tilted", "multiframe", "jpeg2000")}  # fmt: skip
TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0], [0.48, 0.64, 0.6]])  # an exact rotation
STEP = 4.0
STACKS = {  # orientation, and from a slice to the next
    "axial": (AXIAL, [0, 0, STEP]),
    "rows flipped": ((1, 0, 0, 0, -1, 0), [0, 0, -STEP]),
    "coronal": (CORONAL, [0, STEP, 0]),
    "sagittal": (SAGITTAL, [-STEP, 0, 0]),
    "oblique": ((*TURN[:, 0], *TURN[:, 1]), STEP * TURN[:, 2]),
    "tilted gantry": (AXIAL, [0, 1.4, STEP]),
    "quarter turn": ((0, -1, 0, 1, 0, 0), [0, 0, STEP]),  # rows run to the front: axes are swapped, and one flipped
}
SIZE = (4, 144, 112)  # slices, rows, columns


def letter_f() -> np.ndarray:
    """Return (slices, rows, columns) bool: an F with strokes of 28 pixels, whose arms differ from slice to slice."""
    mask = np.zeros(SIZE, bool)
    for k in range(SIZE[0]):
        mask[k, 8:132, 10:38] = True
        mask[k, 8:36, 10 : 100 - 12 * k] = True
        mask[k, 60:88, 10 : 60 + 8 * k] = True
    return mask


@dataclass
class Case:
    """A prediction, and the truth about it from the files: for each slice and class the centers of its voxels."""

    prediction: Prediction
    frames: dict[tuple[str, int], np.ndarray]  # by SOP instance UID and frame, (rows, columns) label values
    planes: dict[tuple[str, int], tuple[np.ndarray, ...]]  # position, vector to the next row, to the next column

    def points(self, value: int) -> np.ndarray:
        """Return the voxel centers of a class, (n, 3) LPS mm."""
        found = []
        for key, labels in self.frames.items():
            position, down, right = self.planes[key]
            rows, columns = np.nonzero(labels == value)
            found.append(position + rows[:, None] * down + columns[:, None] * right)
        return np.concatenate(found)


def make_case(folder: Path, labels_of: Callable[[int], np.ndarray], out: Path) -> Case:
    """Read a series with our reader, as inference does, and put on each slice the labels of its InstanceNumber."""
    frames, planes = {}, {}
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        shared = dataset.get("SharedFunctionalGroupsSequence")
        for index in range(int(dataset.get("NumberOfFrames", 1))):
            place = spacing = orientation = dataset
            number = dataset.InstanceNumber
            if shared:
                place = dataset.PerFrameFunctionalGroupsSequence[index].PlanePositionSequence[0]
                spacing, orientation = shared[0].PixelMeasuresSequence[0], shared[0].PlaneOrientationSequence[0]
                number = index + 1
            cosines = np.reshape(orientation.ImageOrientationPatient, (2, 3)).astype(float)
            key = (str(dataset.SOPInstanceUID), index + 1)
            position = np.array(place.ImagePositionPatient, float)
            planes[key] = (position, cosines[1] * spacing.PixelSpacing[0], cosines[0] * spacing.PixelSpacing[1])
            frames[key] = labels_of(int(number) - 1)
    image = LoadImage(reader=MedicalImageReader(), ensure_channel_first=True, image_only=True)(folder)
    uids = {str(path): str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in folder.iterdir()}
    keys = zip((uids[file] for file in image.meta["files"]), image.meta["frame_numbers"], strict=True)
    slices = np.stack([frames[key] for key in keys])
    labels = MetaTensor(torch.from_numpy(slices.T.copy())[None], meta=image.meta)
    return Case(Prediction("case", out / "case", labels, image), frames, planes)


def letters() -> np.ndarray:
    """Return the letter F as class 1 with a hole, and a block of class 3 at the border; classes 2 and 4 are missing."""
    labels = letter_f()[:, ::2, ::2].astype(np.uint8)
    labels[:, 20:24, 8:14] = 0
    labels[:, 50:72, 40:56] = 3
    return labels


def segmentation_writer(algorithm: Algorithm, **options: bool) -> SegmentationWriter:
    sources = SourceImages(complete_headers=options.get("complete_headers", False))
    return SegmentationWriter(class_names=NAMES, terminology=TERMINOLOGY, algorithm=algorithm, sources=sources)


def structure_set_writer(algorithm: Algorithm) -> StructureSetWriter:
    return StructureSetWriter(class_names=NAMES, algorithm=algorithm, sources=SourceImages(complete_headers=False))


def complaints(path: Path) -> list[str]:
    """Return the errors that dciodvfy reports."""
    assert shutil.which("dciodvfy"), "dicom3tools is not installed"
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
    kinds = ("Segmentation", "RTStructureSet", "Comprehensive3DSR", "TrueColorSC")
    assert any(kind in done.stderr for kind in kinds), done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]
