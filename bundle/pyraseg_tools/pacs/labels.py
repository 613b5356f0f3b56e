# SPDX-License-Identifier: Apache-2.0
"""Find the DICOM Segmentations that a PACS holds of its images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from bundle.pyraseg.dicom import without_notices
from bundle.pyraseg.labels import ImageUids, images_of, references_of
from bundle.pyraseg_tools.pacs.connection import plain_errors
from bundle.pyraseg_tools.pacs.search import RemoteSeries, pages


@dataclass(frozen=True)
class RemoteLabel:
    """Hold what a PACS says of a segmentation.

    Attributes:
        study_uid, series_uid, uid: its study, its own series and itself, "" where a file lacks one.
        references: the images that it refers to.
        automatic: whether a program made a segment of it alone (Segment Algorithm Type, PS3.3 C.8.20.2).
        written: its Content Date and Content Time, "" where it has none.
    """

    study_uid: str
    series_uid: str
    uid: str
    references: ImageUids
    automatic: bool
    written: str


def find_label_series(client: DICOMwebClient, study_uid: str) -> list[tuple[str, str]]:
    """Return the series of a study that are segmentations: UID and number of objects, "" where the PACS tells none.

    Raises:
        PacsError: the PACS does not answer, or not as it should.
    """
    count = "NumberOfSeriesRelatedInstances"
    search = partial(client.search_for_series, study_uid, search_filters={"Modality": "SEG"}, fields=[count])
    with plain_errors(client):
        found = pages(search, "SeriesInstanceUID")
    return [
        (uid, str(answer.get(count, ""))) for uid, answer in found.items() if answer.get("Modality", "SEG") == "SEG"
    ]


def read_label_series(client: DICOMwebClient, study_uid: str, series_uid: str) -> list[RemoteLabel]:
    """Return the segmentations of a series, from their headers (WADO-RS metadata, PS3.18 10.4.1.1.2).

    Raises:
        PacsError: the PACS does not answer, or not as it should.
    """
    with plain_errors(client), without_notices():
        return [label_of(Dataset.from_json(item)) for item in client.retrieve_series_metadata(study_uid, series_uid)]


def labels_by_series(series: Sequence[RemoteSeries], labels: Iterable[RemoteLabel]) -> dict[str, list[RemoteLabel]]:
    """Return the labels of each series, by its UID; those of none of them are left out."""
    found: dict[str, list[RemoteLabel]] = {one.uid: [] for one in series}
    for label in labels:
        for place in images_of(label.references, [one.uids for one in series]):
            found[series[place].uid].append(label)
    return found


def label_of(header: Dataset) -> RemoteLabel:
    """Return what the header of a segmentation says."""
    return RemoteLabel(
        str(header.get("StudyInstanceUID", "")),
        str(header.get("SeriesInstanceUID", "")),
        str(header.get("SOPInstanceUID", "")),
        references_of(header),
        any(item.get("SegmentAlgorithmType") == "AUTOMATIC" for item in header.get("SegmentSequence") or []),
        f"{header.get('ContentDate') or ''}{header.get('ContentTime') or ''}",
    )
