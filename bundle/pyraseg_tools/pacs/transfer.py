# SPDX-License-Identifier: Apache-2.0
"""Fetch a series (WADO-RS), store a segmentation (STOW-RS) and get it back (PS3.18 10.4 and 10.5)."""

from pathlib import Path

from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import values_as_they_are, without_notices
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
    with plain_errors(client), without_notices():
        for dataset in client.iter_series(series.study_uid, series.uid, media_types=AS_STORED):
            if (dataset.get("StudyInstanceUID"), dataset.get("SeriesInstanceUID")) != (series.study_uid, series.uid):
                raise PyrasegError("The PACS sends images of another series. It needs repair.")
            files.append(folder / f"{len(files):06d}.dcm")
            _save(dataset, files[-1])
    if len(files) != series.instances:
        raise PacsError(f"the PACS lists {series.instances} images and sends {len(files)}: still arriving?")
    return files


def store(client: DICOMwebClient, dataset: Dataset) -> None:
    """Store an object in its study.

    Raises:
        PyrasegError: the PACS does not take it.
    """
    with plain_errors(client), without_notices():
        answer = client.store_instances([dataset], str(dataset.StudyInstanceUID))
    for item in answer.get("FailedSOPSequence") or []:
        raise PyrasegError(f"the PACS does not take the segmentation (reason {int(item.FailureReason):04X}H, PS3.7 C).")


def holds(client: DICOMwebClient, study_uid: str, series_uid: str, instance_uid: str) -> bool:
    """Return whether a search finds an object."""
    with plain_errors(client):
        return bool(client.search_for_instances(study_uid, series_uid, search_filters={"SOPInstanceUID": instance_uid}))


def fetch_instance(client: DICOMwebClient, study_uid: str, series_uid: str, instance_uid: str, path: Path) -> None:
    """Write one object to a file."""
    with plain_errors(client), without_notices():
        _save(client.retrieve_instance(study_uid, series_uid, instance_uid, media_types=AS_STORED), path)


def _save(dataset: Dataset, path: Path) -> None:
    with values_as_they_are():
        dataset.save_as(path)
