# SPDX-License-Identifier: Apache-2.0
"""DICOM objects about DICOM inputs: segmentations and structure sets, what they refer to, and who made them."""

import logging
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Generic, TypeVar, cast

import numpy as np
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError, Structures, file_digest, remove_results, replacing
from bundle.pyraseg.dicom import (
    complete,
    copied_names,
    missing_attributes,
    read_sources,
    slice_planes,
    sound_sources,
    unsound_uids,
)
from bundle.pyraseg.figures import color_of
from bundle.pyraseg.inference.prediction import Prediction
from bundle.pyraseg.labels import require_seg_type, segment_classes, write_segmentation, write_structure_set

logger = logging.getLogger(__name__)

Found = TypeVar("Found")


class Algorithm:
    """Identify a segmentation algorithm by name and version, for the headers of what it wrote.

    Args:
        name: of the program.
        model_file: the weights, whose hash is a part of the version.
    """

    def __init__(self, *, name: str, model_file: str | Path) -> None:
        self.name = name
        self.model_file = Path(model_file)

    @cached_property
    def version(self) -> str:
        """Return the version of the package and the first digits of the weights' SHA-256."""
        digest = file_digest(self.model_file)
        return f"{version('pyraseg')}, weights {digest[:12]}"


class Once(Generic[Found]):
    """Find something out about a prediction once for all writers that ask, one prediction after the other.

    Args:
        find: what it is; what this raises is not remembered.
    """

    def __init__(self, find: Callable[[Prediction], Found]) -> None:
        self.find = find
        self._last: Callable[[], Prediction | None] = lambda: None  # a weak one, or its volume would stay
        self._found: Found | None = None

    def __call__(self, prediction: Prediction) -> Found:
        if self._last() is not prediction:
            self._found, self._last = self.find(prediction), weakref.ref(prediction)
        return cast(Found, self._found)


class SourceImages:
    """Return the headers of a prediction's images, sound ones, once for all writers.

    Args:
        complete_headers: where images lack the UIDs that a reference is made of, or have malformed ones, write a copy
            of the series with generated ones as `<name>_series/` and return that. Without it images that lack one are
            refused.
    """

    def __init__(self, *, complete_headers: bool) -> None:
        self.complete_headers = complete_headers
        self._once = Once(self._find)

    def __call__(self, prediction: Prediction) -> list[Dataset] | None:
        """Return a header for each slice, see `sound_sources`; None where the input is not DICOM.

        Raises:
            PyrasegError: headers are incomplete.
        """
        return self._once(prediction) if prediction.source_files else None

    def _find(self, prediction: Prediction) -> list[Dataset]:
        files = prediction.source_files
        sources = read_sources(files)
        missing = missing_attributes(sources)
        malformed = unsound_uids(sources) if self.complete_headers else []
        if not missing and not malformed:
            return sound_sources(sources)
        copy = prediction.stem.with_name(f"{prediction.stem.name}_series")
        if not self.complete_headers:
            raise PyrasegError(
                f"its images have no {', '.join(missing)} to be referred to by. With --complete_headers true a copy of "
                f"the series with generated UIDs is written to {copy.name}/ and referred to; store it with the result."
            )
        placed = slice_planes(sources, prediction.source_frames) is not None
        remove_results(copy, "|".join(re.escape(name) for name in copied_names(files)))  # the same files come again
        with replacing(copy) as temporary:
            temporary.mkdir()
            sources = complete(files, temporary, placed=placed)
        lacking = [*(f"no {name}" for name in missing), *(f"malformed {name}" for name in malformed)]
        logger.warning("%s: %s; a copy of the series with generated UIDs is in %s",
                       prediction.name, ", ".join(lacking), f"{copy.name}/")  # fmt: skip
        return sound_sources(sources)


class SegmentationWriter:
    """Write `<name>_seg.dcm`, a segmentation whose segment numbers are the label values.

    A FRACTIONAL one holds the probabilities as the network gives them, calibrated where a temperature was fitted, and
    not tidied up. Regions are segments that overlap, of one object, in the order in which the config names them. Every
    class is described, those that were not found too; nothing found at all is an explicit result of empty frames.
    Inputs that are not DICOM get none.

    Args:
        class_names: names of all classes, background first; they become the segments' labels.
        terminology: their codes; see `segment_classes`.
        algorithm: what segmented.
        sources: finds the images that are referred to.
        regions: the classes of each region where these are predicted, see `core.Structures`, as segments.
        seg_type: "BINARY", "LABELMAP" or "FRACTIONAL", see `write_segmentation`.

    Raises:
        PyrasegError: a class or region has no codes, or faulty ones; there is no such type, or it cannot hold regions.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        terminology: Mapping[str, Mapping[str, Sequence[str]]],
        algorithm: Algorithm,
        sources: SourceImages,
        regions: Mapping[str, Sequence[str]] | None = None,
        seg_type: str = "BINARY",
    ) -> None:
        self.structures = Structures(class_names, regions)
        require_seg_type(seg_type, overlapping=self.structures.overlapping)
        self.seg_type = seg_type
        self.classes = segment_classes(self.structures.names, terminology)
        self.algorithm = algorithm
        self.sources = sources
        #: What identifies the segmentation of a prediction, which is written for the first who asks; None for none.
        self.written = Once(self._write)

    def __call__(self, prediction: Prediction) -> list[Path] | None:
        return None if self.written(prediction) is None else [path_of(prediction, "seg")]

    def _write(self, prediction: Prediction) -> Dataset | None:
        sources = self.sources(prediction)
        if sources is None:
            return None
        return write_segmentation(
            path_of(prediction, "seg"),
            self._fractions(prediction) if self.seg_type == "FRACTIONAL" else prediction.slices,
            sources,
            self.classes,
            frame_numbers=prediction.source_frames,
            algorithm=(self.algorithm.name, self.algorithm.version),
            overlapping=self.structures.overlapping,
            seg_type=self.seg_type,
        )

    def _fractions(self, prediction: Prediction) -> np.ndarray:
        """Return the probabilities of the segments as DICOM orders them, (N, rows, columns, segments) float32."""
        if prediction.probabilities is None:
            raise PyrasegError(
                "A FRACTIONAL segmentation holds probabilities, and this run keeps none. Its `postprocessing` needs "
                "the steps that configs/inference.json has for `keep_probabilities`."
            )
        found = np.asarray(prediction.probabilities.cpu(), np.float32)[self.structures.channel(1) :]
        return found.T if found.ndim == 4 else found.T[None]


class StructureSetWriter:
    """Write `<name>_rtstruct.dcm`, the outlines of every class; the ROI numbers are the label values.

    Classes that were not found are listed without contours. Inputs that are not DICOM, or have no patient position,
    get none.

    Args:
        class_names: names of all classes, background first; they become the names of the ROIs.
        algorithm: what segmented.
        sources: finds the images that are referred to.
        regions: the classes of each region where these are predicted, see `core.Structures`, as ROIs.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        algorithm: Algorithm,
        sources: SourceImages,
        regions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.structures = Structures(class_names, regions)
        self.algorithm = algorithm
        self.sources = sources

    def __call__(self, prediction: Prediction) -> list[Path] | None:
        sources = self.sources(prediction) if prediction.geometry is not None else None
        if prediction.geometry is None or sources is None:
            return None
        path = path_of(prediction, "rtstruct")
        write_structure_set(
            path,
            prediction.slices,
            sources,
            prediction.geometry,
            self.structures.names[1:],
            frame_numbers=prediction.source_frames,
            colors=color_of(np.arange(1, len(self.structures.names))).tolist(),
            algorithm=(self.algorithm.name, self.algorithm.version),
            overlapping=self.structures.overlapping,
        )
        return [path]


def path_of(prediction: Prediction, kind: str) -> Path:
    """Return the DICOM file of some kind about an input."""
    return prediction.stem.with_name(f"{prediction.stem.name}_{kind}.dcm")
