# SPDX-License-Identifier: Apache-2.0
"""Small images with a label beside them in every form, and the chain that loads both."""

from pathlib import Path

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged
from PIL import Image

from bundle.pyraseg.labels.seg_writer import SegmentClass
from bundle.pyraseg.transforms.label import LoadLabeld
from tests.helpers.dicom_files import AXIAL, CORONAL, PATIENT, write_series

CLASSES = ["background", "spleen", "Liver", "lesion"]  # not in the order of the segments below
SEGMENTS = [SegmentClass.organ("liver"), SegmentClass.lesion("liver"), SegmentClass.organ("spleen")]
TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0], [0.48, 0.64, 0.6]])
OBLIQUE = (*TURN[:, 0], *TURN[:, 1])
SPACING = (1.5, 0.75)  # rows, columns
SHAPE = (4, 7, 5)  # slices, rows, columns
NAMES = ["c.dcm", "a.dcm", "d.dcm", "b.dcm"]
STACKS = {
    "axial": (AXIAL, [0, 0, 3]),
    "coronal": (CORONAL, [0, 3, 0]),
    "oblique": (OBLIQUE, 3 * TURN[:, 2]),
    "tilted": (AXIAL, [0, 0.9, 3]),
}
HEIGHTS = np.array([0, 3, 4.5, 10])  # of an unevenly spaced stack


def make_series(folder: Path, stack: str = "oblique") -> list[Path]:
    """Write a series under shuffled names and return its files in slice order."""
    uneven = stack == "uneven"
    orientation, step = STACKS["axial" if uneven else stack]
    return write_series(
        folder,
        np.zeros(SHAPE, np.int16),
        orientation=orientation,
        slice_step=step,
        origin=(-20.0, 30.0, 100.0),
        spacing=SPACING,
        names=NAMES,
        per_slice=lambda k: {"ImagePositionPatient": [-20.0, 30.0, 100 + HEIGHTS[k]]} if uneven else {},
        SliceThickness=3,
        **PATIENT,
    )


def load(image: object, label: object, **options: object) -> tuple[MetaTensor, MetaTensor]:
    reader = "bundle.pyraseg.transforms.MedicalImageReader"
    chain = Compose([LoadImaged("image", reader=reader, ensure_channel_first=True)])
    data = chain({"image": str(image), "label": label if isinstance(label, dict) else str(label)})
    data = LoadLabeld("label", **{"class_names": CLASSES, **options})(data)
    return data["image"], data["label"]


def letter_f() -> np.ndarray:
    """Return a mask (slices, rows, columns) that no flip or transposition maps onto itself; slice 0 is empty."""
    mask = np.zeros(SHAPE, np.uint8)
    for k in range(1, SHAPE[0]):
        mask[k, 1:6, 1] = 1
        mask[k, 1, 1 : 5 - k % 2] = 1
        mask[k, 3, 2 : 2 + k % 3] = 3
    return mask


F = letter_f().transpose(2, 1, 0)
PICTURE = letter_f()[1]  # rows, columns


def nifti(mask: np.ndarray, affine: np.ndarray, path: Path) -> Path:
    nib.save(nib.Nifti1Image(mask, affine), path)
    return path


def write_picture(path: Path, values: np.ndarray, *, palette: bool = False) -> Path:
    image = Image.fromarray(values)
    if palette:
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(path)
    return path
