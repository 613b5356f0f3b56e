# SPDX-License-Identifier: Apache-2.0
"""Read one DICOM series as sorted slices in the units of its modality, with its geometry, or say why it cannot be.

`read_series` reads all slices; `SeriesStream` reads them one by one, in the memory of a few.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError, require_outside
from bundle.pyraseg.dicom.apart import patient_of
from bundle.pyraseg.dicom.found import FoundFile, are_found, opened, phase_of
from bundle.pyraseg.dicom.frame import Frame, names_of
from bundle.pyraseg.dicom.frames import arrange_series
from bundle.pyraseg.dicom.geometry import Geometry
from bundle.pyraseg.dicom.grids import grid_kind, stored_values, unpack
from bundle.pyraseg.dicom.headers import frame_count, parse
from bundle.pyraseg.dicom.luts import VoiLut, VoiWindow, apply_modality_lut, read_voi
from bundle.pyraseg.dicom.pixels import PIXEL_GROUPS, padding_mask, to_uint8
from bundle.pyraseg.dicom.purpose import facts_of
from bundle.pyraseg.dicom.scan import Series
from bundle.pyraseg.dicom.selection import Selection
from bundle.pyraseg.dicom.uptake import Uptake, in_unit, stored_unit, uptake_of
from bundle.pyraseg.dicom.wanted import read_phase

logger = logging.getLogger(__name__)

_SOURCE = (
    "Modality SOPClassUID Manufacturer ManufacturerModelName ConvolutionKernel KVP SliceThickness BodyPartExamined "
    "PatientPosition Laterality ViewPosition ImageType EchoTime PresentationIntentType PixelSpacing ImagerPixelSpacing "
    "BurnedInAnnotation LossyImageCompression"
)

#: The lowest tag of pixels, Float Pixel Data.
_PIXELS = 0x7FE00008


@dataclass(eq=False)
class DicomImage:
    """Hold the slices of a series, in the order of their positions along the normal of the image plane.

    Attributes:
        pixels: float32 (N, rows, columns) in rescaled units, neither windowed nor inverted; or uint8 RGB
            (N, rows, columns, 3).
        geometry: where the slices lie; None where the images have no position (CR, DX, US, photographs ...): they then
            stand in the order of InstanceNumber or, where that is not unique, of file names and frames.
        inverted: whether the smallest value is meant to be shown white.
        voi: for each slice, the views that its header offers.
        padding: number of pixels that were padding. They hold the smallest valid rescaled value of the whole series.
        units: "HU" for CT; "SUVbw" for PET, or its Units by name where the header lacks what that needs; else
            RescaleType, or "".
        photometric: PhotometricInterpretation as stored (``pixels`` is RGB for every color one).
        series_uid, study_uid, frame_of_reference_uid: "" where the files have none.
        series_number, series_description: what the header calls the series, without names of patients; or "".
        files, frame_numbers, sop_instance_uids: for each slice, its file, its frame in there (from 1), the file's UID
            or "". A multi-frame file is repeated.
        found: for each slice its file with the complete header, where found files were given, else nothing.
        for_processing: PresentationIntentType is FOR PROCESSING, so that ``voi`` and ``inverted`` mean little.
        source: non-identifying attributes of the first slice, by keyword.
        facts: what a `Purpose` compares.
        factors: for each slice, what brought its rescaled values into ``units``: 1 but for PET.
        phase: which one of the series was read, from 1; 0 where none was asked for.
    """

    pixels: np.ndarray
    geometry: Geometry | None
    inverted: bool
    voi: tuple[tuple[VoiWindow | VoiLut, ...], ...]
    padding: int
    units: str
    modality: str
    photometric: str
    series_uid: str
    series_number: str
    series_description: str
    study_uid: str
    frame_of_reference_uid: str
    files: tuple[Path, ...]
    frame_numbers: tuple[int, ...]
    sop_instance_uids: tuple[str, ...]
    for_processing: bool
    source: dict[str, object]
    facts: dict[str, str]
    factors: tuple[float, ...]
    found: tuple[FoundFile, ...] = ()
    phase: int = 0


def read_series(
    path: str | Path | Sequence[str | Path],
    *,
    series: object = None,
    select: str | Selection | None = None,
    phase: int | str | None = None,
    pet_units: str = "suv",
) -> DicomImage:
    """Read a series from a folder, from given files, or from a multi-frame object.

    Padding is found on stored values and replaced, after rescaling, by the smallest valid value of the series, so that
    no resampling, percentile or deformation mixes it in; so are NaN and infinity outside the field of view, see
    `require_outside`. A stack with a missing slice is read, and a warning logged.

    Args:
        path: a folder (searched recursively), a file, or the files of a series, such as `Series.found`: their
            headers are not read again, and come back complete for those that will refer to them. What a `ChosenPath`
            says comes before the other arguments.
        series: which series to read where there are several: its number, its description, as in ``"portal*"``, or its
            UID, see `wanted.is_meant` (``scan.find_series`` lists them).
        select: what the slices must have where a series holds several phases, echoes or b-values, by DICOM keywords:
            ``"EchoTime=4.6"``, several with a semicolon between them, or a mapping. ``#n`` stands for the n-th value in
            each place, such as ``"TriggerTime=#3"`` of a cine; ``"FrameOfReferenceUID=any"`` believes the positions of
            slices of which each has a frame of reference of its own.
        phase: which one to read where the series has several, by its number, see `phases.split_phases`.
        pet_units: "suv" makes PET standardized uptake values by body weight, and says why where the header lacks what
            is needed; "stored" leaves them in the unit that is stored.

    Raises:
        PyrasegError: there is no such path or series, or no choice between several; or the series has duplicate or
            missing positions, mixes sizes, orientations, spacings, color or polarity, holds NaN inside, or cannot be
            decoded; or a file was replaced while it was read.

    >>> from pydicom.data import get_testdata_file
    >>> image = read_series(get_testdata_file("CT_small.dcm"))
    >>> image.pixels.shape, image.units, image.modality
    ((1, 128, 128), 'HU', 'CT')
    """
    own, frames, geometry = arrange_series(path, series=series, select=select, phase=phase)
    uptake = _uptake(own, frames, pet_units)
    pixels, voi, padding, found = _load(own, frames, uptake, are_found(path))
    first = frames[0]
    return DicomImage(
        pixels=pixels,
        geometry=geometry,
        inverted=first.inverted,
        voi=voi,
        padding=padding,
        units=uptake.unit,
        modality=own.modality,
        photometric=str(first.header.get("PhotometricInterpretation") or ""),
        series_uid=own.instance_uid,
        series_number=own.number,
        series_description=own.description,
        study_uid=own.study_uid,
        frame_of_reference_uid=str(first.header.get("FrameOfReferenceUID") or ""),
        files=tuple(frame.file for frame in frames),
        frame_numbers=tuple(frame.index + 1 for frame in frames),
        sop_instance_uids=tuple(str(frame.header.get("SOPInstanceUID") or "") for frame in frames),
        for_processing=first.header.get("PresentationIntentType") == "FOR PROCESSING",
        source={name: value for name in _SOURCE.split() if (value := first.value(name)) not in (None, "")},
        facts=facts_of(first, geometry, modality=own.modality, units=uptake.unit),
        factors=uptake.factors,
        found=found,
        phase=phase_of(path) or int(read_phase(phase) or 0),
    )


def _uptake(series: Series, frames: Sequence[Frame], pet_units: str) -> Uptake:
    """Return the unit of the values of a series, and what brings each frame into it."""
    if series.modality == "PT":
        if pet_units == "stored":
            return stored_unit(frames)
        uptake = uptake_of(series.headers, frames)
        if uptake.reason:
            logger.warning("Series %s: values in %s, no uptake values (SUV): %s.", series, uptake.unit, uptake.reason)
        return uptake
    rescale_type = str(frames[0].value("RescaleType") or "")
    if rescale_type in ("", "US"):  # US: unspecified
        rescale_type = "HU" if series.modality == "CT" else ""
    return Uptake(rescale_type, (1.0,) * len(frames))


def _load(
    series: Series, frames: list[Frame], uptake: Uptake, keep_headers: bool
) -> tuple[np.ndarray, tuple, int, tuple]:
    """Decode every file once, and fill pixels, views per slice, the count of padding, and the files with headers."""
    first, color = frames[0].header, frames[0].is_color
    shape = (len(frames), int(first.Rows), int(first.Columns))
    pixels = np.empty((*shape, 3), np.uint8) if color else np.empty(shape, np.float32)
    views: list[tuple] = [()] * len(frames)
    seen: dict[tuple, tuple] = {}  # equal views are kept once: a VOI LUT may have 65536 entries
    places: dict[Path, list[int]] = defaultdict(list)
    for place, frame in enumerate(frames):
        places[frame.file].append(place)
    padding = missing = 0
    found: dict[Path, FoundFile] = {}
    for file, slots in places.items():
        dataset, decoded, header = decode_file(frames[slots[0]], keep_header=keep_headers)
        if header is not None:
            found[file] = header
        for slot in slots:
            index = frames[slot].index
            if color:
                pixels[slot] = to_uint8(decoded[index], dataset)
                continue
            pixels[slot] = rescale_frame(decoded[index], dataset, index, uptake.factors[slot])
            padding += int(np.count_nonzero(np.isposinf(pixels[slot])))
            missing += int(np.count_nonzero(np.isnan(pixels[slot])))
            view = in_unit(read_voi(dataset, index), uptake.factors[slot])
            views[slot] = seen.setdefault(view, view)
    padding += missing
    if padding == pixels.size:
        raise PyrasegError(f"Series {series}: every pixel is padding ({names_of(frames)}). There is nothing to read.")
    if missing:
        require_outside(np.isnan(pixels), [str(frame.file) for frame in frames])
    if padding:
        pixels[~np.isfinite(pixels)] = np.fmin.reduce(pixels, axis=None)
    return pixels, tuple(views), padding, tuple(found[frame.file] for frame in frames if found)


def decode_file(frame: Frame, *, keep_header: bool = False) -> tuple[Dataset, np.ndarray, FoundFile | None]:
    """Return the file of a frame, the stored values of all frames in it and, if wanted, its complete header to keep.

    Raises:
        PyrasegError: it was replaced, cannot be decoded, or its pixels have another size than its header says.
    """
    dataset, found = _read(frame, keep_header)
    header = frame.header
    decoded = stored_values(dataset, header)
    if decoded.shape[:3] != (frame_count(header), int(header.Rows), int(header.Columns)):
        raise PyrasegError(f"{frame.file}: the size of the pixel data differs from the header. Export the file again.")
    return dataset, decoded, found


def rescale_frame(stored: np.ndarray, dataset: Dataset, index: int, factor: float = 1.0) -> np.ndarray:
    """Return the rescaled values of a gray frame times a factor, float32.

    Padding is infinite until it is known what replaces it; whatever else is not finite is NaN.
    """
    values = apply_modality_lut(stored, dataset, index, factor=factor)
    values[~np.isfinite(values)] = np.nan
    values[padding_mask(stored, dataset)] = np.inf
    return values


def _read(frame: Frame, keep_header: bool) -> tuple[Dataset, FoundFile | None]:
    found = None
    try:
        with opened(frame.file, frame.stamp) as (stream, stamp):
            dataset = pydicom.dcmread(stream, force=True)
            if keep_header:
                header = _without_pixels(dataset)
                if grid_kind(header):
                    unpack(header, header)
                found = FoundFile.of(frame.file, header, stamp, patient=patient_of(header), complete=True)
            parse(dataset, PIXEL_GROUPS)
        return dataset, found
    except PyrasegError:
        raise
    except Exception as error:  # Damaged files make pydicom raise nearly every type there is.
        raise PyrasegError(
            f"{frame.file}: cannot be read to its end: it is damaged or truncated. Export it again."
        ) from error


def _without_pixels(dataset: Dataset) -> Dataset:
    """Return the header of a file that was just read: as pydicom has it, nothing is converted."""
    header = copy(dataset)
    header._dict = {tag: element for tag, element in dataset._dict.items() if tag < _PIXELS}
    return header


class SeriesStream:
    """The slices of a DICOM series, in the order of `read_series`; each pass over them reads the files anew.

    One file is held at a time: one slice, or the stored values of a multi-frame object.

    Args:
        path: a folder, a file, or the files of a series.
        select: attributes that the slices must have, see `read_series`.
        pet_units: what PET is to be in, see `read_series`.

    Attributes:
        geometry: where the slices lie, or None.
        units, facts: see `DicomImage`.
        inverted: whether the smallest value is meant to be shown white.
        for_processing: the images are not meant for display.
        files, frame_numbers: for each slice, its file and its frame there, from 1.
        sources: the file of each slice, for objects that refer to it: found files have their complete headers there
            once the slices were read.

    Raises:
        PyrasegError: as `read_series`.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        *,
        select: str | Selection | None = None,
        pet_units: str = "suv",
    ) -> None:
        self.series, self.frames, self.geometry = arrange_series(path, select=select)
        self._uptake = _uptake(self.series, self.frames, pet_units)
        self.units = self._uptake.unit
        first = self.frames[0]
        self.facts = facts_of(first, self.geometry, modality=self.series.modality, units=self.units)
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

        Padding becomes the smallest valid value of the series; where there is any, a pass of its own finds that first,
        and looks where NaN lies.
        """
        for values, _ in self._decoded():
            if not self.is_color:
                padding = ~np.isfinite(values)
                if padding.any():
                    values[padding] = self._smallest
            yield values

    def views(self) -> Iterator[tuple[VoiWindow | VoiLut, ...]]:
        """Yield what the header offers for each slice to be shown by."""
        for frame, factor, (_, dataset) in zip(self.frames, self._uptake.factors, self._decoded(), strict=True):
            yield in_unit(read_voi(dataset, frame.index), factor)

    def percentiles(self, percentages: Sequence[float]) -> list[float]:
        """Return percentiles of all slices without padding, as NumPy interpolates them, without holding the slices.

        Different values are counted: as many as an image stores, 65536 at most, where all slices share one rescaling.
        """
        values, counts = np.empty(0, np.float32), np.empty(0, np.int64)
        for pixels, _ in self._decoded():
            valid = pixels[np.isfinite(pixels)]
            if valid.size < pixels.size:
                _ = self._smallest  # which refuses what cannot be padding
            found, times = np.unique(valid, return_counts=True)
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
        """Return the smallest value that is no padding, after a look at where NaN lies."""
        smallest = np.inf
        missing: dict[int, np.ndarray] = {}
        for place, (values, _) in enumerate(self._decoded()):
            smallest = min(smallest, float(np.fmin.reduce(values, axis=None, initial=np.inf)))
            if (here := np.isnan(values)).any():
                missing[place] = here
        if smallest == np.inf:
            raise PyrasegError(f"Series {self.series}: every pixel is padding. There is nothing to read.")
        if missing:
            nowhere = np.zeros_like(next(iter(missing.values())))
            masks = np.stack([missing.get(place, nowhere) for place in range(len(self))])
            require_outside(masks, [str(file) for file in self.files])
        return smallest

    def _decoded(self) -> Iterator[tuple[np.ndarray, Dataset]]:
        """Yield each slice, see `rescale_frame`, and its file."""
        held: tuple[Frame, tuple] | None = None
        for place, frame in enumerate(self.frames):
            if held is None or held[0].file != frame.file:
                wanted = self._keep_headers and not isinstance(self.sources[place], FoundFile)
                held = frame, decode_file(frame, keep_header=wanted)
            dataset, decoded, found = held[1]
            self.sources[place] = found or self.sources[place]
            stored, factor = decoded[frame.index], self._uptake.factors[place]
            if self.is_color:
                yield to_uint8(stored, dataset), dataset
            else:
                yield rescale_frame(stored, dataset, frame.index, factor), dataset
