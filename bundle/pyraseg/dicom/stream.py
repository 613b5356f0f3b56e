# SPDX-License-Identifier: Apache-2.0
"""Read the slices of a series one by one, as `read_series` reads them all, in the memory of a few."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.found import FoundFile, are_found
from bundle.pyraseg.dicom.frames import Frame, arrange_series
from bundle.pyraseg.dicom.luts import VoiLut, VoiWindow, read_voi
from bundle.pyraseg.dicom.pixels import to_uint8
from bundle.pyraseg.dicom.series import decode_file, rescale_frame


class SeriesStream:
    """The slices of a DICOM series, in the order of `read_series`; each pass over them reads the files anew.

    One file is held at a time: one slice, or the stored values of a multi-frame object.

    Args:
        path: a folder, a file, or the files of a series.
        select: attributes that the slices must have, see `read_series`.

    Attributes:
        geometry: where the slices lie, or None.
        inverted: whether the smallest value is meant to be shown white.
        for_processing: the images are not meant for display.
        files, frame_numbers: for each slice, its file and its frame there, from 1.
        sources: the file of each slice, for objects that refer to it: found files have their complete headers there
            once the slices were read.

    Raises:
        PyrasegError: as `read_series`.
    """

    def __init__(self, path: str | Path | Sequence[str | Path], *, select: Mapping[str, object] | None = None) -> None:
        self.series, self.frames, self.geometry = arrange_series(path, select=select)
        first = self.frames[0]
        self.inverted = first.inverted
        self.is_color = first.is_color
        self.for_processing = first.header.get("PresentationIntentType") == "FOR PROCESSING"
        self.files = [frame.file for frame in self.frames]
        self.sources = [str(file) for file in self.files]
        self._keep_headers = are_found(path)
        self.frame_numbers = [frame.index + 1 for frame in self.frames]

    def __len__(self) -> int:
        return len(self.frames)

    def slices(self) -> Iterator[np.ndarray]:
        """Yield each slice, (rows, columns) float32 in rescaled units or (rows, columns, 3) uint8 RGB.

        Padding becomes the smallest valid value of the series; where there is any, a pass of its own finds that first.
        """
        for values, _ in self._decoded():
            if not self.is_color:
                padding = np.isposinf(values)
                if padding.any():
                    values[padding] = self._smallest
            yield values

    def views(self) -> Iterator[tuple[VoiWindow | VoiLut, ...]]:
        """Yield what the header offers for each slice to be shown by."""
        for frame, (_, dataset) in zip(self.frames, self._decoded(), strict=True):
            yield read_voi(dataset, frame.index)

    def percentiles(self, percentages: Sequence[float]) -> list[float]:
        """Return percentiles of all slices together, as NumPy interpolates them, without holding the slices.

        Different values are counted: as many as an image stores, 65536 at most, where all slices share one rescaling.
        """
        values, counts = np.empty(0, np.float32), np.empty(0, np.int64)
        for pixels in self.slices():
            found, times = np.unique(pixels, return_counts=True)
            values, index = np.unique(np.concatenate([values, found]), return_inverse=True)
            counts = np.bincount(index, weights=np.concatenate([counts, times])).astype(np.int64)
        ends = np.cumsum(counts)
        result = []
        for percentage in percentages:
            place = percentage / 100 * (ends[-1] - 1)
            below, above = (
                values[np.searchsorted(ends, rank, side="right")] for rank in (int(place), -int(-place // 1))
            )
            result.append(float(below) + (float(above) - float(below)) * (place - int(place)))
        return result

    @cached_property
    def _smallest(self) -> float:
        smallest = min(float(values.min(initial=np.inf)) for values, _ in self._decoded())
        if smallest == np.inf:
            raise PyrasegError(f"Series {self.series}: every pixel is padding. There is nothing to read.")
        return smallest

    def _decoded(self) -> Iterator[tuple[np.ndarray, Dataset]]:
        """Yield each slice, infinite where it is padding, and its file."""
        held: tuple[Frame, tuple] | None = None
        for place, frame in enumerate(self.frames):
            if held is None or held[0].file != frame.file:
                wanted = self._keep_headers and not isinstance(self.sources[place], FoundFile)
                held = frame, decode_file(frame, keep_header=wanted)
            dataset, decoded, found = held[1]
            self.sources[place] = found or self.sources[place]
            stored = decoded[frame.index]
            yield to_uint8(stored, dataset) if self.is_color else rescale_frame(stored, dataset, frame.index), dataset
