# SPDX-License-Identifier: Apache-2.0
"""RT Structure Sets of DICOM inputs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bundle.pyraseg.figures import color_of
from bundle.pyraseg.inference.algorithm import Algorithm
from bundle.pyraseg.inference.prediction import Prediction
from bundle.pyraseg.inference.sources import SourceImages
from bundle.pyraseg.labels import write_structure_set


class StructureSetWriter:
    """Write `<name>_rtstruct.dcm`, the outlines of every class; the ROI numbers are the label values.

    Classes that were not found are listed without contours. Inputs that are not DICOM, or have no place in the patient,
    get none.

    Args:
        class_names: names of all classes, background first; they become the names of the ROIs.
        algorithm: what segmented.
        sources: finds the images that are referred to.
    """

    def __init__(self, *, class_names: Sequence[str], algorithm: Algorithm, sources: SourceImages) -> None:
        self.class_names = list(class_names)
        self.algorithm = algorithm
        self.sources = sources

    def __call__(self, prediction: Prediction) -> list[Path] | None:
        if prediction.geometry is None or not prediction.source_files:
            return None
        path = prediction.stem.with_name(f"{prediction.stem.name}_rtstruct.dcm")
        write_structure_set(
            path,
            prediction.slices,
            self.sources(prediction),
            prediction.geometry,
            self.class_names[1:],
            frame_numbers=prediction.source_frames,
            colors=color_of(np.arange(1, len(self.class_names))),
            algorithm=(self.algorithm.name, self.algorithm.version),
        )
        return [path]
