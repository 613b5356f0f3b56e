# SPDX-License-Identifier: Apache-2.0
"""DICOM Segmentation objects of DICOM inputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bundle.pyraseg.dicom import in_frame_order
from bundle.pyraseg.inference.algorithm import Algorithm
from bundle.pyraseg.inference.prediction import Prediction
from bundle.pyraseg.inference.sources import SourceImages
from bundle.pyraseg.labels import segment_classes, write_segmentation


class SegmentationWriter:
    """Write `<name>_seg.dcm`, a BINARY segmentation whose segment numbers are the label values.

    Every class is described, those that were not found too; nothing found at all is an explicit result of empty frames.
    Inputs that are not DICOM get none.

    Args:
        class_names: names of all classes, background first; they become the segments' labels.
        terminology: their codes; see `segment_classes`.
        algorithm: what segmented.
        sources: finds the images that are referred to.

    Raises:
        PyrasegError: a class has no codes, or faulty ones.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        terminology: Mapping[str, Mapping[str, Sequence[str]]],
        algorithm: Algorithm,
        sources: SourceImages,
    ) -> None:
        self.classes = segment_classes(class_names, terminology)
        self.algorithm = algorithm
        self.sources = sources

    def __call__(self, prediction: Prediction) -> list[Path] | None:
        sources = self.sources(prediction)
        if sources is None:
            return None
        path = prediction.stem.with_name(f"{prediction.stem.name}_seg.dcm")
        mask = in_frame_order(prediction.slices, prediction.source_frames, sources)
        write_segmentation(path, mask, sources, self.classes, algorithm=(self.algorithm.name, self.algorithm.version))
        return [path]
