# SPDX-License-Identifier: Apache-2.0
"""Which classes a label holds, before anybody has named them: values of a map, names of segments or regions."""

from pathlib import Path

import numpy as np

from bundle.pyraseg.core import ITK, NIFTI, PHOTOGRAPH, PyrasegError
from bundle.pyraseg.labels import StructureSet, open_label
from bundle.pyraseg.transforms import MedicalImageReader

#: More values than this are no classes but a blurred mask.
MOST_VALUES = 255


def classes_present(label: str | Path, *, threshold: float | None = None, unknown_value: int | None = None) -> set[str]:
    """Return the classes that a label holds, background left out.

    They are the values of a label map, the names of the segments of a DICOM SEG that have pixels, or those of the
    regions of an RTSTRUCT that have contours.

    Args:
        label: path.
        threshold: values of a map from here on are class 1, smaller ones background.
        unknown_value: value of pixels that nobody has labeled.

    Raises:
        PyrasegError: the label cannot be read, or holds too many values to be classes.
    """
    path = Path(label)
    if not path.name.lower().endswith(NIFTI + ITK + PHOTOGRAPH):
        found = open_label(path)
        if isinstance(found, StructureSet):
            return {roi.region.name for roi in found.rois.values() if roi.contours}
        drawn = {frame.segment for frame in found.frames() if frame.mask.any()}
        return {found.regions[number].name for number in drawn}
    values = np.unique(MedicalImageReader(palette_index=True).get_data([path])[0])
    if threshold is not None:
        values = np.unique(values >= threshold)
    if len(values) > MOST_VALUES + 1 or (values != np.round(values)).any():
        raise PyrasegError(
            f"The label {path} holds {len(values)} values, which are no classes. Give a threshold for a blurred mask."
        )
    return {f"{value:g}" for value in values.astype(float) if value not in (0, unknown_value)}
