# SPDX-License-Identifier: Apache-2.0
"""What our reader finds in a folder."""

from pathlib import Path

import numpy as np

from bundle.pyraseg.core import read_photograph
from bundle.pyraseg.dicom import DicomImage, SeriesStream, read_series
from bundle.pyraseg.runtime import find_inputs
from tests.helpers.corpus.form import Plane, Slice, Stack


def stack_of(image: DicomImage) -> Stack:
    """Return the slices that our reader gives."""
    geometry = image.geometry
    if geometry is None:
        return [Slice(values, None) for values in image.pixels]
    orientation = (*geometry.row_cosine.tolist(), *geometry.column_cosine.tolist())
    return [
        Slice(values, Plane(tuple(position.tolist()), orientation, geometry.pixel_spacing))
        for values, position in zip(image.pixels, geometry.positions, strict=True)
    ]


def read(source: object, **options: object) -> Stack:
    """Return what our reader finds, whole and slice by slice, which must be the same; PET as other readers have it."""
    if str(source).endswith(".png"):
        return [Slice(read_photograph(source, rgb=True), None)]
    options = {"pet_units": "stored", **options}
    stack = stack_of(read_series(source, **options))
    streamed = list(SeriesStream(source, **options).slices())
    assert len(streamed) == len(stack)
    assert all(np.array_equal(one, other.values) for one, other in zip(streamed, stack, strict=True))
    return stack


def ours(folder: Path, **options: object) -> list[Stack]:
    """Return a stack for each input that inference finds in a folder."""
    return [read(item["image"], **options) for item in find_inputs(folder) if "image" in item]
