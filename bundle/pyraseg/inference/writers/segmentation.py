# SPDX-License-Identifier: Apache-2.0
"""DICOM Segmentation objects of DICOM inputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bundle.pyraseg.dicom.seg import SegmentClass, write_segmentation
from bundle.pyraseg.dicom.source import in_frame_order
from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.inference.algorithm import Algorithm
from bundle.pyraseg.inference.prediction import Prediction
from bundle.pyraseg.inference.sources import SourceImages


class SegmentationWriter:
    """Write `<name>_seg.dcm`, a BINARY segmentation whose segment numbers are the label values.

    Every class is described, those that were not found too; nothing found at all is an explicit result of empty frames.
    Inputs that are not DICOM get none.

    Args:
        class_names: names of all classes, background first; they become the segments' labels.
        terminology: for each class but the background its codes, as for `SegmentClass.from_codes`.
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
        uncoded = [name for name in class_names[1:] if name not in terminology]
        if uncoded:
            raise PyrasegError(
                f"A DICOM SEG needs a code for each class, and the terminology has none for {', '.join(uncoded)}. Give "
                f'them, such as "terminology": {{"{uncoded[0]}": {{"type": ["10200004", "SCT", "Liver"]}}}}, in a '
                "config of your own after this one (docs/inference.md)."
            )
        self.classes = [SegmentClass.from_codes(name, terminology[name]) for name in class_names[1:]]
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
