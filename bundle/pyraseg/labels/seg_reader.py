# SPDX-License-Identifier: Apache-2.0
"""Read DICOM Segmentations (PS3.3 A.51), binary, fractional and label map, and lay them on an image by geometry."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import iter_pixels
from pydicom.pixels.utils import unpack_bits

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import (
    Geometry,
    Plane,
    frame_count,
    frame_planes,
    functional_group,
    is_little_endian,
    sound_uid,
    transfer_syntax,
)
from bundle.pyraseg.labels.class_table import Canvas, ClassTable, Region, read_codes
from bundle.pyraseg.labels.references import ImageGrid, references_of, require_reference
from bundle.pyraseg.labels.seg_types import TYPES

IN_PLANE_TOLERANCE = 0.1  # pixels by which a frame may miss the image's grid
STEP_TOLERANCE = 1e-2  # of a pixel, from one pixel to the next


@dataclass(frozen=True)
class SegmentationFrame:
    """Hold the pixels of one segment on one plane.

    ``plane`` is None where the frame has no patient position; then it belongs to the one image frame that it was
    derived from: ``source`` is its SOP Instance UID and frame number (0 where none is given).
    """

    number: int  # of the frame in the file, from 1
    segment: int
    plane: Plane | None
    source: tuple[str, int] | None
    mask: np.ndarray  # (rows, columns) bool


class Segmentation:
    """A segmentation whose frames are decoded one at a time.

    Args:
        dataset: of any Segmentation Type.
        path: its file, for messages.
        fraction: a pixel of a FRACTIONAL segmentation belongs to a segment from this share of Maximum Fractional Value
            on, be it probability or occupancy.

    Raises:
        PyrasegError: the header is none of a segmentation that can be read.
    """

    def __init__(self, dataset: Dataset, path: Path, *, fraction: float = 0.5) -> None:
        self.path = path
        self.fraction = fraction
        self.type = str(dataset.get("SegmentationType") or "")
        if self.type not in TYPES:
            raise PyrasegError(f"{path} is a segmentation of type {self.type or 'unknown'}, not {', '.join(TYPES)}.")
        #: What each segment number stands for.
        self.regions = {
            int(item.SegmentNumber): _region(item) for item in dataset.SegmentSequence if int(item.SegmentNumber) != 0
        }
        self.references = references_of(dataset)
        described, frames = len(dataset.get("PerFrameFunctionalGroupsSequence") or []), frame_count(dataset)
        if described != frames:
            raise PyrasegError(f"{path} describes {described} frames and has {frames}. Export it again.")
        self._dataset = dataset
        self._planes = frame_planes(dataset)
        self._sources = [_source_frames(dataset, frame) for frame in range(len(self._planes))]
        self._numbers = [] if self.type == "LABELMAP" else [self._number(frame) for frame in range(len(self._planes))]
        self._padding = int(dataset.get("PixelPaddingValue") or 0)
        if self.type == "FRACTIONAL" and not 0 < int(dataset.get("MaximumFractionalValue") or 0) <= 255:
            raise PyrasegError(f"{path} is FRACTIONAL, but has no Maximum Fractional Value. Export it again.")

    @property
    def sources(self) -> list[tuple[str, int]]:
        """Return the image frames it was derived from: SOP Instance UID, and number from 1, or 0 where not given."""
        return [source for frame in self._sources for source in frame]

    def frames(self) -> Iterator[SegmentationFrame]:
        """Yield every frame, that of a label map once for each segment on it.

        Raises:
            PyrasegError: a frame cannot be decoded, or belongs to a segment that is not described.
        """
        for index, pixels in enumerate(self._decoded()):
            if index == len(self._planes):
                raise PyrasegError(f"{self.path} holds more pixels than its header says. Export it again.")
            for segment, mask in self._masks(index, pixels):
                if segment not in self.regions:
                    raise PyrasegError(
                        f"Frame {index + 1} of {self.path} belongs to segment {segment}, which is not described; "
                        f"there are {sorted(self.regions)}. Export it again."
                    )
                sources = self._sources[index]
                source = sources[0] if len(sources) == 1 else None
                yield SegmentationFrame(index + 1, segment, self._planes[index], source, mask)

    def _decoded(self) -> Iterator[np.ndarray]:
        dataset = self._dataset
        syntax = transfer_syntax(dataset)
        try:
            if dataset.BitsAllocated == 1 and is_little_endian(dataset) and not (syntax and syntax.is_compressed):
                yield from self._unpacked()
            else:
                yield from iter_pixels(dataset, raw=True)
        except Exception as error:  # Damaged files make pydicom raise nearly every type there is.
            reason, name = " ".join(str(error).split())[:200], syntax.name if syntax else "unknown"
            found = f"The frames of {self.path} cannot be decoded (transfer syntax {name}): {reason}"
            raise PyrasegError(f"{found}. Export it uncompressed.") from error

    def _unpacked(self) -> Iterator[np.ndarray]:
        """Yield frames of one bit a pixel, which may begin within a byte: pydicom's `iter_pixels` cannot."""
        data, shape = self._dataset.PixelData, (int(self._dataset.Rows), int(self._dataset.Columns))
        size = shape[0] * shape[1]
        needed = -(-size * len(self._planes) // 8)
        if len(data) not in (needed, needed + needed % 2):
            raise ValueError(f"{len(data)} bytes are not {len(self._planes)} frames of {shape[0]} x {shape[1]} bits")
        for index in range(len(self._planes)):
            first, end = index * size, (index + 1) * size
            bits = np.asarray(unpack_bits(data[first // 8 : -(-end // 8)]))
            yield bits[first % 8 :][:size].reshape(shape)

    def _masks(self, index: int, pixels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        if self.type == "LABELMAP":
            for value in np.unique(pixels):
                if value not in (0, self._padding):
                    yield int(value), pixels == value
            return
        if self.type == "BINARY":
            yield self._numbers[index], pixels.astype(bool)
            return
        most = int(self._dataset.MaximumFractionalValue)
        if pixels.max() > most:
            raise PyrasegError(
                f"Frame {index + 1} of {self.path} holds the value {pixels.max()}, but Maximum Fractional Value is "
                f"{most}. Export it again."
            )
        yield self._numbers[index], pixels >= self.fraction * most

    def _number(self, index: int) -> int:
        item = functional_group(self._dataset, index, "SegmentIdentificationSequence") or Dataset()
        number = item.get("ReferencedSegmentNumber")
        if number is None:
            raise PyrasegError(f"Frame {index + 1} of {self.path} does not name its segment. Export it again.")
        return int(number)


def _region(item: Dataset) -> Region:
    kind = (item.get("SegmentedPropertyTypeCodeSequence") or [Dataset()])[0]
    place = (item.get("AnatomicRegionSequence") or [Dataset()])[0]
    modifiers = [(kind, "SegmentedPropertyTypeModifierCodeSequence"), (place, "AnatomicRegionModifierSequence")]
    return Region(
        str(item.get("SegmentLabel") or ""),
        read_codes(item, "SegmentedPropertyTypeCodeSequence"),
        tuple(code for owner, keyword in modifiers for code in read_codes(owner, keyword)),
        read_codes(item, "AnatomicRegionSequence"),
    )


def _source_frames(dataset: Dataset, frame: int) -> list[tuple[str, int]]:
    """Return the image frames that a frame was derived from, by SOP Instance UID and number (0 where not given)."""
    derivation = functional_group(dataset, frame, "DerivationImageSequence") or Dataset()
    return [
        (str(item.get("ReferencedSOPInstanceUID") or ""), int(item.get("ReferencedFrameNumber") or 0))
        for item in derivation.get("SourceImageSequence") or []
    ]


def segmentation_to_labels(
    segmentation: Segmentation, grid: ImageGrid, table: ClassTable, *, drawn_on: str = "series"
) -> np.ndarray:
    """Lay the frames on image slices and return class indices (N, rows, columns) uint8.

    Every pixel goes to the voxel at its place: frames may be out of order, cropped, flipped, turned, or cut the volume
    along another of its axes. A frame without a place goes to the image frame that it was derived from.

    Raises:
        PyrasegError: the segmentation was drawn on other images, a segment means no class, a pixel lies between those
            of the image, or segments overlap whose classes may not.
    """
    where = f"The DICOM SEG {segmentation.path}"
    require_reference(where, segmentation.references, grid.uids, drawn_on=drawn_on)
    classes = table.indices(segmentation.regions, where, "segments")
    canvas = Canvas(table, grid.shape, where)
    for frame in segmentation.frames():
        if classes[frame.segment] and frame.mask.any():
            canvas.paint(classes[frame.segment], _voxels(frame, grid, f"Frame {frame.number} of {segmentation.path}"))
    return canvas.finished()


def _voxels(frame: SegmentationFrame, grid: ImageGrid, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return slice, row and column of the voxel at each pixel of a frame's mask."""
    rows, columns = np.nonzero(frame.mask)
    plane, geometry = frame.plane, grid.geometry
    if plane is None or geometry is None:
        return np.full(len(rows), _source_slice(frame, grid, where)), rows, columns
    row_cosine, column_cosine = np.reshape(plane.orientation, (2, 3))
    steps = np.stack([column_cosine * plane.pixel_spacing[0], row_cosine * plane.pixel_spacing[1]])  # to the next pixel
    points = plane.position + np.stack([rows, columns], axis=1) @ steps
    slices, off = geometry.nearest_slices(points)
    if np.abs(off).max() > geometry.slice_tolerance:
        raise PyrasegError(
            f"{where} lies up to {np.abs(off).max():.2f} mm from the nearest image slice, more than "
            f"{geometry.slice_tolerance:.2f} mm. It was drawn on other images or resampled; choose their series."
        )
    exact = geometry.pixels_at(points, slices)
    nearest = np.rint(exact).astype(int)
    inside = ((nearest >= 0) & (nearest < grid.shape[1:])).all()
    if not _are_voxel_steps(steps, geometry) or np.abs(exact - nearest).max() > IN_PLANE_TOLERANCE or not inside:
        raise PyrasegError(
            f"{where} lies on another grid than the image ({frame.mask.shape[0]} x {frame.mask.shape[1]} pixels of "
            f"{plane.pixel_spacing[0]:g} x {plane.pixel_spacing[1]:g} mm against {grid.shape[1]} x {grid.shape[2]} of "
            f"{geometry.pixel_spacing[0]:g} x {geometry.pixel_spacing[1]:g} mm). Resample it to the image first."
        )
    return slices, nearest[:, 0], nearest[:, 1]


def _are_voxel_steps(steps: np.ndarray, geometry: Geometry) -> bool:
    """Return whether steps (2, 3) in mm lead from a voxel to a neighbor, along two of the image's axes."""
    spacing = (geometry.gaps.min(initial=np.inf), *geometry.pixel_spacing)
    along = np.abs(steps @ np.stack([geometry.normal, geometry.column_cosine, geometry.row_cosine], axis=1) / spacing)
    axes = along.argmax(axis=1)
    return axes[0] != axes[1] and np.allclose(along, np.eye(3)[axes], rtol=0, atol=STEP_TOLERANCE)


def _source_slice(frame: SegmentationFrame, grid: ImageGrid, where: str) -> int:
    """Return the slice that a frame was derived from."""
    if frame.source is None:
        raise PyrasegError(f"{where} has no patient position and does not name one image that it was derived from.")
    if frame.mask.shape != grid.shape[1:]:
        raise PyrasegError(
            f"{where} has {frame.mask.shape[0]} x {frame.mask.shape[1]} pixels, the image that it was derived from "
            f"{grid.shape[1]} x {grid.shape[2]}. Resample it to the image first."
        )
    uid, number = frame.source
    frames = zip(grid.sop_instance_uids, grid.frame_numbers, strict=True)
    found = [index for index, (one, k) in enumerate(frames) if sound_uid(one) == sound_uid(uid) and (number in (0, k))]
    if len(found) != 1:
        raise PyrasegError(f"{where} was derived from an image that is not the label's. Give the series of that image.")
    return found[0]
