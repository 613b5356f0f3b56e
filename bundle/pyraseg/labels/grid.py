# SPDX-License-Identifier: Apache-2.0
"""The slices of an image as labels find them: their patient position, and the objects they came from."""

from dataclasses import dataclass
from functools import cached_property

from bundle.pyraseg.dicom import DicomImage, Geometry
from bundle.pyraseg.labels.references import ImageUids


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
