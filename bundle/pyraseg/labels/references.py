# SPDX-License-Identifier: Apache-2.0
"""Which image a label belongs to: the one rule, for every user of labels.

The SOP instances that a label refers to decide, else the series, else the frame of reference; what the label or the
image does not state cannot decide. A label that names a series alone is also taken by the frame of reference.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import DicomImage, Geometry, sound_uid

LOGGER = logging.getLogger(__name__)

#: What a label must have in common with its image.
DRAWN_ON = ("series", "frame_of_reference")
#: What decides, the strongest first: attributes of `ImageUids`.
_DECIDING = ("sop_instances", "series", "frames_of_reference")
#: Sequences that lead to the series that an object refers to, in its own study and in others (PS3.3 C.12.4).
_SERIES = (
    ("ReferencedSeriesSequence",),
    ("StudiesContainingOtherReferencedInstancesSequence", "ReferencedSeriesSequence"),
)
#: Sequences that lead to the images that a segmentation was derived from (PS3.3 C.7.6.16.2.6, C.12.1).
_DERIVED_FROM = (
    ("SharedFunctionalGroupsSequence", "DerivationImageSequence", "SourceImageSequence"),
    ("PerFrameFunctionalGroupsSequence", "DerivationImageSequence", "SourceImageSequence"),
    ("SourceImageSequence",),
)
#: From an item of the Referenced Frame of Reference Sequence to its series (PS3.3 C.8.8.5).
_RT_SERIES = ("RTReferencedStudySequence", "RTReferencedSeriesSequence")


@dataclass(frozen=True)
class ImageUids:
    """Hold the UIDs of an image, or of the images that a label refers to; an empty set is unknown."""

    sop_instances: frozenset[str] = frozenset()
    series: frozenset[str] = frozenset()
    frames_of_reference: frozenset[str] = frozenset()

    @classmethod
    def known(cls, *uids: Iterable[str]) -> "ImageUids":
        """Return those of instances, series and frames of reference that are not ""."""
        return cls(*(frozenset(map(sound_uid, group)) - {""} for group in uids))

    @classmethod
    def of_images(cls, headers: Sequence[Dataset]) -> "ImageUids":
        """Return the UIDs of the files of an image."""
        keywords = ("SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
        return cls(*(_values(headers, [()], keyword) for keyword in keywords))


def references_of(label: Dataset) -> ImageUids:
    """Return what a SEG or RTSTRUCT refers to.

    A SEG names the images that its frames were derived from; where it does not, those of its Referenced Series count
    (PS3.3 C.12.4). An RTSTRUCT refers to what its contours were drawn on, see `references_of_regions`.
    """
    if label.get("ReferencedFrameOfReferenceSequence") or "StructureSetROISequence" in label:
        regions = references_of_regions(label).values() or [_references_of_frames(label, "")]
        return ImageUids(*(frozenset().union(*(getattr(one, kind) for one in regions)) for kind in _DECIDING))
    return ImageUids(
        _values([label], _DERIVED_FROM, "ReferencedSOPInstanceUID") or _listed(label),
        _values([label], _SERIES, "SeriesInstanceUID"),
        _values([label], [()], "FrameOfReferenceUID"),
    )


def references_of_regions(structures: Dataset) -> dict[int, ImageUids]:
    """Return what each ROI with a contour was drawn on, by its number.

    These are the images that its contours name (PS3.3 C.8.8.6); where they name none, all that the structure set names
    for its frame of reference (C.8.8.5).
    """
    rois = structures.get("StructureSetROISequence") or []
    frames = {int(roi.ROINumber): str(roi.get("ReferencedFrameOfReferenceUID") or "") for roi in rois}
    result = {}
    for item in structures.get("ROIContourSequence") or []:
        if item.get("ContourSequence"):
            number = int(item.ReferencedROINumber)
            named = _references_of_frames(structures, frames.get(number, ""))
            drawn_on = _values([item], [("ContourSequence", "ContourImageSequence")], "ReferencedSOPInstanceUID")
            result[number] = ImageUids(drawn_on or named.sop_instances, named.series, named.frames_of_reference)
    return result


def _references_of_frames(structures: Dataset, uid: str) -> ImageUids:
    """Return what a structure set names for one of its frames of reference, or for all where none is asked for."""
    frames = structures.get("ReferencedFrameOfReferenceSequence") or []
    frames = [frame for frame in frames if uid in ("", frame.get("FrameOfReferenceUID"))]
    return ImageUids(
        _values(frames, [(*_RT_SERIES, "ContourImageSequence")], "ReferencedSOPInstanceUID") or _listed(structures),
        _values(frames, [_RT_SERIES], "SeriesInstanceUID") or _values([structures], _SERIES, "SeriesInstanceUID"),
        frozenset({uid} - {""})
        or _values(frames, [()], "FrameOfReferenceUID")
        or _values([structures], [()], "FrameOfReferenceUID"),
    )


def read_references(path: str | Path) -> ImageUids:
    """Read what a SEG or RTSTRUCT refers to from the header of its file.

    Raises:
        PyrasegError: the file cannot be read.
    """
    try:
        return references_of(pydicom.dcmread(path, force=True, stop_before_pixels=True))
    except Exception as error:  # Damaged files make pydicom raise nearly every type there is.
        raise PyrasegError(f"{path}: the references of this label cannot be read. Export it again.") from error


def belongs(label: ImageUids, image: ImageUids) -> tuple[bool | None, str]:
    """Return whether a label belongs to an image, None where no UID tells, and which attribute of the two decides.

    A series that the label names and the image is not counts less than a frame of reference that they share: images
    that are exported anew get another series, and keep that.
    """
    for kind in _DECIDING:
        named, own = getattr(label, kind), getattr(image, kind)
        if named and own:
            does = not named.isdisjoint(own)
            shared = label.frames_of_reference & image.frames_of_reference
            return (True, "frames_of_reference") if kind == "series" and not does and shared else (does, kind)
    return None, ""


def images_of(label: ImageUids, images: Sequence[ImageUids]) -> list[int]:
    """Return which of some images a label belongs to.

    Where the frame of reference alone decides, that is the one image in it: of several nothing tells which was drawn
    on.
    """
    found = [(place, kind) for place, image in enumerate(images) for does, kind in [belongs(label, image)] if does]
    named = [place for place, kind in found if kind != "frames_of_reference"]
    return named or ([place for place, _ in found] if len(found) == 1 else [])


def require_reference(where: str, label: ImageUids, image: ImageUids, *, drawn_on: str = "series") -> None:
    """Refuse a label that was drawn on another image; where no UID tells, its place decides.

    Where its frame of reference is another one all the same, a warning says so: some programs make one up.

    Args:
        where: the label, for messages.
        label: what it refers to.
        image: the UIDs of the image.
        drawn_on: "series", or "frame_of_reference" to take a label of other images in the same one.

    Raises:
        PyrasegError: the label was drawn on other images, or lies in another frame of reference.
    """
    does, kind = belongs(label, image)
    named, own = label.frames_of_reference, image.frames_of_reference
    elsewhere = bool(named and own and named.isdisjoint(own))
    if does and elsewhere:
        LOGGER.warning("%s refers to the image's series, but names another frame of reference", where)
    if kind == "frames_of_reference" and label.series and image.series and drawn_on == "series":
        LOGGER.warning(
            "%s names no image but the series %s, and lies on one of the series %s with the same frame of reference: "
            "it counts as the same images, exported anew. Look at it if they may be of another phase or sequence",
            where, _listing(label.series), _listing(image.series),
        )  # fmt: skip
    if does or does is None:
        return
    if elsewhere:
        raise PyrasegError(
            f"{where} lies in the frame of reference {_listing(named)}, its image in {_listing(own)}, so it was drawn "
            "on other images. Give the series that it was drawn on."
        )
    in_frame = named & own
    if drawn_on == "frame_of_reference" and in_frame:
        return
    of, series = _listing(label.series), _listing(image.series) or "without a UID"
    if kind == "sop_instances" and label.series & image.series:
        found = f"other images of the series {_listing(label.series & image.series)} than these"
    else:
        found = f"{f'the series {of}' if of else 'instances of another series'}, not on its image, {series}"
    if drawn_on == "frame_of_reference":
        remedy = "images. No frame of reference that both name tells where the label lies on these"
    else:
        remedy = "images, or say --drawn_on frame_of_reference where the patient did not move between the two"
    raise PyrasegError(f"{where} was drawn on {found}. Give those {remedy}.")


def _listing(uids: Iterable[str]) -> str:
    return ", ".join(sorted(uids))


def _listed(label: Dataset) -> frozenset[str]:
    """Return the instances that the Common Instance Reference Module lists."""
    paths = [(*path, "ReferencedInstanceSequence") for path in _SERIES]
    return _values([label], paths, "ReferencedSOPInstanceUID")


def _values(items: Iterable[Dataset], paths: Iterable[tuple[str, ...]], keyword: str) -> frozenset[str]:
    """Return the values of an attribute, "" left out, in the items that sequences lead to."""
    found = {sound_uid(inner.get(keyword)) for path in paths for item in items for inner in _items(item, path)}
    return frozenset(found - {""})


def _items(dataset: Dataset, path: tuple[str, ...]) -> Iterator[Dataset]:
    """Yield the items of nested sequences."""
    if not path:
        yield dataset
        return
    for item in dataset.get(path[0]) or []:
        yield from _items(item, path[1:])


@dataclass(frozen=True, eq=False)
class ImageGrid:
    """Hold the slices of an image that a label is laid on: where they lie, and which DICOM objects they came from.

    Attributes:
        shape: slices, rows, columns.
        geometry: where they lie; None where the image has no patient position.
        series_uid, frame_of_reference_uid: "" where the image has none.
        sop_instance_uids, frame_numbers: for each slice; empty where unknown.
    """

    shape: tuple[int, int, int]
    geometry: Geometry | None = None
    series_uid: str = ""
    frame_of_reference_uid: str = ""
    sop_instance_uids: tuple[str, ...] = ()
    frame_numbers: tuple[int, ...] = ()

    @classmethod
    def of(cls, image: DicomImage) -> "ImageGrid":
        """Return the grid of a series that `read_series` returned."""
        origin = ("series_uid", "frame_of_reference_uid", "sop_instance_uids", "frame_numbers")
        return cls(image.pixels.shape[:3], image.geometry, **{name: getattr(image, name) for name in origin})

    @cached_property
    def uids(self) -> ImageUids:
        """Return the UIDs by which a label refers to the image."""
        return ImageUids.known(self.sop_instance_uids, [self.series_uid], [self.frame_of_reference_uid])
