# SPDX-License-Identifier: Apache-2.0
"""Fetch a series (WADO-RS), store its results (STOW-RS), get them back (PS3.18 10.4 and 10.5) and compare them."""

from collections.abc import Sequence
from pathlib import Path

import pydicom
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.pacs.comparison import require_same
from bundle.pyraseg_tools.pacs.connection import PacsError, plain_errors
from bundle.pyraseg_tools.pacs.search import RemoteSeries

AS_STORED = (("application/dicom", "*"),)  # in the transfer syntax that the PACS has: it need not decode anything


class WebArchive:
    """Be a PACS that speaks DICOMweb, for a `Worker`: series are fetched from it, and results stored beside them."""

    def __init__(self, client: DICOMwebClient) -> None:
        self.client = client

    def fetch(self, series: RemoteSeries, folder: Path) -> list[Path]:
        """See `fetch_series`."""
        return fetch_series(self.client, series, folder)

    def deliver(self, results: Sequence[Path], folder: Path) -> str:
        """Store objects, each unless it has arrived before; get them back and compare them.

        Raises:
            PacsError: the PACS fails, or does not find what it took.
            PyrasegError: it does not take one, or gives another one back.
        """
        for number, path in enumerate(results):
            sent = pydicom.dcmread(path)
            own = str(sent.StudyInstanceUID), str(sent.SeriesInstanceUID), str(sent.SOPInstanceUID)
            if not holds(self.client, *own):
                store(self.client, sent)
                if not holds(self.client, *own):
                    raise PacsError("the PACS took the result, but a search does not find it.")
            returned = folder / f"returned_{number}.dcm"
            fetch_instance(self.client, *own, returned)
            require_same(returned, path)
        return "read back equal"


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
        raise PyrasegError(f"the PACS does not take the result (reason {int(item.FailureReason):04X}H, PS3.7 C).")


def holds(client: DICOMwebClient, study_uid: str, series_uid: str, instance_uid: str) -> bool:
    """Return whether a search finds an object."""
    with plain_errors(client):
        return bool(client.search_for_instances(study_uid, series_uid, search_filters={"SOPInstanceUID": instance_uid}))


def fetch_instance(client: DICOMwebClient, study_uid: str, series_uid: str, instance_uid: str, path: Path) -> None:
    """Write one object to a file."""
    with plain_errors(client):
        client.retrieve_instance(study_uid, series_uid, instance_uid, media_types=AS_STORED).save_as(path)
