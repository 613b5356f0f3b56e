# SPDX-License-Identifier: Apache-2.0
"""A study of two MR sequences on different grids, in which a lesion is seen only where both are looked at.

In T1 balls A and B are bright, in FLAIR balls B and C: the lesion is B, what is bright in both. Places are in LPS mm.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.uid import MRImageStorage

from bundle.pyraseg.labels import SegmentClass, write_segmentation
from tests.helpers.dicom_files import PATIENT, uid, write_series

#: What the sequences are called in the studies that are written here.
SEQUENCES = {"t1": "T1*MPR*", "flair": "*FLAIR*"}
RADIUS = 9.0


class Grid(NamedTuple):
    """Where an axial series lies: (slices, rows, columns), mm between them, and the first pixel's center."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]

    def points(self) -> np.ndarray:
        """Return the place of each voxel, (N, rows, columns, 3) as x, y, z."""
        of_axes = zip(self.origin[::-1], self.spacing, self.shape, strict=True)
        axes = [start + step * np.arange(count) for start, step, count in of_axes]
        z, y, x = np.meshgrid(*axes, indexing="ij")
        return np.stack([x, y, z], axis=-1)


T1 = Grid((12, 48, 44), (2.0, 1.0, 1.0), (-20.0, -24.0, 0.0))
#: Thick slices, shifted, with larger pixels, that do not cover the last columns and rows of T1.
FLAIR = Grid((6, 30, 28), (5.0, 1.5, 1.5), (-22.3, -25.1, -3.2))


def centers(patient: int) -> list[np.ndarray]:
    """Return the centers of the balls A, B and C, in an order that differs from patient to patient."""
    order = np.random.default_rng(patient).permutation(3)
    there = np.array([[-10.0, -10.0, 11.0], [8.0, -8.0, 11.0], [-2.0, 10.0, 11.0]])
    return list(there[order])


def lesion(patient: int, points: np.ndarray) -> np.ndarray:
    """Return which points lie in the lesion."""
    return np.linalg.norm(points - centers(patient)[1], axis=-1) <= RADIUS


def _image(patient: int, points: np.ndarray, bright: tuple[int, int], *, seed: int) -> np.ndarray:
    balls = centers(patient)
    inside = np.any([np.linalg.norm(points - balls[ball], axis=-1) <= RADIUS for ball in bright], axis=0)
    noise = np.random.default_rng([patient, seed]).normal(0, 5, inside.shape)
    return (100 + 300 * inside + noise).astype(np.int16)


def write_patient(
    folder: Path, patient: int, *, flair: bool = True, frame: str = "one", description: str = "Sag FLAIR fs"
) -> list[Path]:
    """Write a study, folder/t1 and folder/flair, and return the files of T1.

    Args:
        folder: of the study.
        patient: number of the patient.
        flair: write FLAIR.
        frame: of reference that FLAIR has; "one" is that of T1.
        description: of FLAIR.
    """
    about = {
        **PATIENT, "Modality": "MR", "SOPClassUID": MRImageStorage, "BodyPartExamined": "BRAIN",
        "PatientID": f"P{patient}", "StudyInstanceUID": uid("sequences", patient),
    }  # fmt: skip
    written = []
    for number, (name, grid, bright, called) in enumerate(
        [("t1", T1, (0, 1), "T1 MPR iso"), ("flair", FLAIR, (1, 2), description)], 1
    ):
        if name == "flair" and not flair:
            continue
        files = write_series(
            folder / name,
            _image(patient, grid.points(), bright, seed=number),
            spacing=grid.spacing[1:],
            origin=grid.origin,
            slice_step=grid.spacing[0],
            **about | {
                "SeriesInstanceUID": uid("sequences", patient, name), "SeriesNumber": number,
                "FrameOfReferenceUID": uid("sequences", patient, "one" if name == "t1" else frame),
                "SeriesDescription": called, "SliceThickness": grid.spacing[0],
            },
        )  # fmt: skip
        written.append(files)
    return written[0]


def write_label(path: Path, patient: int, sources: list) -> None:
    """Write the SEG of the lesion, on T1."""
    mask = lesion(patient, T1.points()).astype(np.uint8)
    write_segmentation(path, mask, sources, [SegmentClass.lesion("liver")])
