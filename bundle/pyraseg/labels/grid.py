# SPDX-License-Identifier: Apache-2.0
"""The slices of an image as labels find them: their place in the patient, and the objects they came from."""

import logging
from collections.abc import Collection
from dataclasses import dataclass

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import DicomImage, Geometry

LOGGER = logging.getLogger(__name__)

#: What a label must have in common with its image.
DRAWN_ON = ("series", "frame_of_reference")


@dataclass(frozen=True, eq=False)
class ImageGrid:
    """Hold the slices of an image that a label is laid on: where they lie, and which DICOM objects they came from.

    Attributes:
        shape: slices, rows, columns.
        geometry: where they lie; None where the image has no place in the patient.
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

    def require_reference(
        self,
        where: str,
        series_uids: Collection[str],
        frame_of_reference_uid: str,
        *,
        sop_instance_uids: Collection[str] = (),
        drawn_on: str = "series",
    ) -> None:
        """Refuse a label that was drawn on other images.

        A label belongs to this image where it refers to its series or to one of its instances. Where its frame of
        reference is another one all the same, a warning says so: some programs make one up. UIDs that either side lacks
        cannot decide.

        Args:
            where: the label, for messages.
            series_uids: what it refers to; empty where it does not say.
            frame_of_reference_uid: of the label, or "".
            sop_instance_uids: instances that it refers to.
            drawn_on: "series", or "frame_of_reference" to take a label of another series in the same one.

        Raises:
            PyrasegError: the label refers to another series, or lies in another frame of reference.
        """
        series, instances = set(series_uids) - {""}, set(sop_instance_uids) - {""}
        own_instances = set(self.sop_instance_uids) - {""}
        frames = {frame_of_reference_uid, self.frame_of_reference_uid} - {""}
        if self.series_uid in series or instances & own_instances:
            if len(frames) > 1:
                LOGGER.warning("%s refers to the image's series, but names another frame of reference", where)
            return
        if len(frames) > 1:
            raise PyrasegError(
                f"{where} lies in the frame of reference {frame_of_reference_uid}, its image in "
                f"{self.frame_of_reference_uid}, so it was drawn on other images. Give the series that it was drawn on."
            )
        elsewhere = (series and self.series_uid) or (instances and own_instances)
        if elsewhere and not (drawn_on == "frame_of_reference" and frames):
            other = f"the series {', '.join(sorted(series))}" if series else "instances of another series"
            raise PyrasegError(
                f"{where} was drawn on {other}, not on its image, {self.series_uid or 'without a UID'}. Give that "
                'series, or set drawn_on to "frame_of_reference" where the patient did not move between the two.'
            )
