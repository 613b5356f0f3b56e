# SPDX-License-Identifier: Apache-2.0
"""Volumes as tiles of one image: mosaics of Siemens, grids of United Imaging."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.helpers.corpus import remedies
from tests.helpers.corpus.form import Form, Slice, Stack
from tests.helpers.corpus.mr import OBLIQUE
from tests.helpers.corpus.writing import ORIGIN, header, numbers, planes, uid, write_slices
from tests.helpers.dicom_files import AXIAL, CORONAL, SAGITTAL, save
from tests.helpers.mosaics import MOSAIC, make_mosaic, make_uih_grid

SIZE = (7, 20, 24)  # of nine tiles two stay empty
SPACING = (2.5, 2.0)


def mosaic(
    path: Path, *, orientation: Sequence[float] = AXIAL, step: float = 3.0, start: int = 0, private: bool = True, **own
) -> Stack:
    """Write a mosaic whose slices go along the normal by a step, and return them."""
    stored = numbers(SIZE, start=start)
    where = planes(len(stored), orientation=orientation, step=step, spacing=SPACING)
    attributes = {
        "BitsStored": 12,
        **header("MR", "tiles"),
        "ImageType": MOSAIC,
        "SOPInstanceUID": uid(path.name),
        **own,
    }
    dataset = make_mosaic(stored, origin=ORIGIN, orientation=orientation, spacing=SPACING, step=step, **attributes)
    if not private:
        dataset.remove_private_tags()
    save(dataset, path)
    return [Slice(image.astype(float), plane) for image, plane in zip(stored, where, strict=True)]


def one(**options):
    return lambda folder: [mosaic(folder / "MR1", **options)]


def times(folder: Path) -> list[Stack]:
    return [mosaic(folder / f"MR{t}", start=t, InstanceNumber=t + 1, AcquisitionNumber=t + 1) for t in range(3)]


def grid(folder: Path) -> list[Stack]:
    stored = numbers(SIZE)
    where = planes(len(stored), spacing=SPACING, step=3.0)
    attributes = header("MR", "tiles") | {
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "VFRAME"],
        "SOPInstanceUID": uid("grid"),
    }
    positions = np.array([plane.position for plane in where])
    attributes |= {"ImagePositionPatient": list(where[0].position), "PixelSpacing": list(SPACING)}
    save(make_uih_grid(stored, positions, BitsStored=12, **attributes), folder / "MR1")
    return [[Slice(image.astype(float), plane) for image, plane in zip(stored, where, strict=True)]]


def as_single_slices(folder: Path, message: str, work: Path) -> list[tuple[object, dict]]:
    """Get the images from the scanner as single slices."""
    assert "from the scanner as single slices" in message
    where = planes(SIZE[0], spacing=SPACING)
    write_slices(work, numbers(SIZE), where, BitsStored=12, **header("MR", "tiles"))
    return [(work, {})]


FORMS = [
    Form("Mosaic", "Siemens", one(), "read: its slices"),
    Form("Mosaic, sagittal", "Siemens", one(orientation=SAGITTAL, step=-3.0), "read: its slices"),
    Form("Mosaic, coronal, backwards", "Siemens", one(orientation=CORONAL, step=-3.0), "read: its slices"),
    Form("Mosaic, oblique", "Siemens", one(orientation=OBLIQUE), "read: its slices"),
    Form("Mosaics of several volumes", "Siemens", times, "refused, with a choice", refused=("acquisitions",),
         remedy=remedies.select),
    Form("Mosaic that a PACS took the private attributes from", "PACS", one(private=False),
         "refused by its name: ask for single slices", refused=("Siemens mosaic", "private attributes"),
         remedy=as_single_slices),
    Form("Grid", "United Imaging", grid, "read: its slices"),
]  # fmt: skip
