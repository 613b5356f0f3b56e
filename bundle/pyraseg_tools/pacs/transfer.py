# SPDX-License-Identifier: Apache-2.0
"""Fetch a series (WADO-RS), store a segmentation (STOW-RS), get it back (PS3.18 10.4 and 10.5) and check that it is the
same."""

from pathlib import Path

import numpy as np
import pydicom
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError, Structures
from bundle.pyraseg.dicom import read_sources
from bundle.pyraseg.labels import ClassTable, ImageGrid, read_dicom_label, references_of
from bundle.pyraseg.runtime import Labels
from bundle.pyraseg_tools.pacs.connection import PacsError, plain_errors
from bundle.pyraseg_tools.pacs.search import RemoteSeries

AS_STORED = (("application/dicom", "*"),)  # in the transfer syntax that the PACS has: it need not decode anything


def fetch_series(client: DICOMwebClient, series: RemoteSeries, folder: Path) -> list[Path]:
    """Write the images of a series into a folder, one at a time, and return their files.

    Raises:
        PacsError: the PACS fails, or sends another number of images than it has listed.
        PyrasegError: it sends images of another series.
    """
    files = []
    with plain_errors(client):
        for dataset in client.iter_series(series.study_uid, series.uid, media_types=AS_STORED):
            if (dataset.get("StudyInstanceUID"), dataset.get("SeriesInstanceUID")) != (series.study_uid, series.uid):
                raise PyrasegError("The PACS sends images of another series. It needs repair.")
            files.append(folder / f"{len(files):06d}.dcm")
            dataset.save_as(files[-1])
    if len(files) != series.instances:
        raise PacsError(f"the PACS lists {series.instances} images and sends {len(files)}: still arriving?")
    return files


def store(client: DICOMwebClient, dataset: Dataset) -> None:
    """Store an object in its study.

    Raises:
        PyrasegError: the PACS does not take it.
    """
    with plain_errors(client):
        answer = client.store_instances([dataset], str(dataset.StudyInstanceUID))
    for item in answer.get("FailedSOPSequence") or []:
        raise PyrasegError(f"the PACS does not take the segmentation (reason {int(item.FailureReason):04X}H, PS3.7 C).")


def holds(client: DICOMwebClient, study_uid: str, series_uid: str, instance_uid: str) -> bool:
    """Return whether a search finds an object."""
    with plain_errors(client):
        return bool(client.search_for_instances(study_uid, series_uid, search_filters={"SOPInstanceUID": instance_uid}))


def fetch_instance(client: DICOMwebClient, study_uid: str, series_uid: str, instance_uid: str, path: Path) -> None:
    """Write one object to a file."""
    with plain_errors(client):
        client.retrieve_instance(study_uid, series_uid, instance_uid, media_types=AS_STORED).save_as(path)


#: What names the segments and their codes, and what they refer to.
KEPT = ("SOPClassUID", "StudyInstanceUID", "FrameOfReferenceUID", "SegmentSequence", "ReferencedSeriesSequence")


def require_same(returned: Path, sent: Path, mask: np.ndarray, grid: ImageGrid, structures: Structures) -> None:
    """Refuse a segmentation that came back changed.

    It is read as a training label would be: laid on the images by its geometry, with classes told by the names
    of its segments.

    Args:
        returned: file from the PACS.
        sent: file that was written; only UIDs of its own and times may differ.
        mask: (N, rows, columns) uint8, what was found in each slice.
        grid: of the images.
        structures: what its values mean.

    Raises:
        PyrasegError: it cannot be read, or differs.
    """
    was, is_now = (pydicom.dcmread(path, stop_before_pixels=True) for path in (sent, returned))
    changed = [keyword for keyword in KEPT if was.get(keyword) != is_now.get(keyword)]
    if references_of(was) != references_of(is_now):
        changed.append("the images that frames refer to")
    if not _holds_pixels(returned, grid, mask, structures):
        changed.append("pixels")
    if changed:
        raise PyrasegError(
            f"the segmentation is stored as {is_now.SOPInstanceUID}, but comes back with other {', '.join(changed)}. "
            "Look at what the PACS changes on arrival."
        )


def _holds_pixels(returned: Path, grid: ImageGrid, mask: np.ndarray, structures: Structures) -> bool:
    """Return whether a segmentation holds a mask, of regions one after the other."""
    background, *names = structures.names
    if not structures.overlapping:
        return np.array_equal(read_dicom_label(returned, grid, ClassTable(structures.names)), mask)
    return all(
        np.array_equal(
            read_dicom_label(returned, grid, ClassTable([background, name], {background: ["*"]})) == 1,
            structures.mask(mask, number),
        )
        for number, name in enumerate(names, 1)
    )


def grid_of(labels: Labels) -> ImageGrid:
    """Return where the labels of a DICOM series lie."""
    headers = read_sources(labels.files)
    first = headers[0]
    return ImageGrid(
        labels.shape,
        labels.geometry,
        series_uid=str(first.SeriesInstanceUID),
        frame_of_reference_uid=str(first.get("FrameOfReferenceUID") or ""),
        sop_instance_uids=tuple(str(header.SOPInstanceUID) for header in headers),
        frame_numbers=tuple(labels.frame_numbers),
    )
