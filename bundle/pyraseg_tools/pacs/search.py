# SPDX-License-Identifier: Apache-2.0
"""Find series, and the DICOM Segmentations of them, in a PACS (QIDO-RS, PS3.18 10.6)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError, nearest_hint
from bundle.pyraseg.dicom import NON_IMAGES, description_of, hide_names, is_meant
from bundle.pyraseg.labels import ImageUids, images_of, is_automatic, references_of
from bundle.pyraseg_tools.pacs.connection import PacsError, plain_errors

#: What may be asked for, by the level at which a PACS knows it. Nothing that names a patient: arguments are public.
OF_STUDIES = ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "ModalitiesInStudy")
#: What is asked for beyond what every PACS answers of a series.
FIELDS = ["NumberOfSeriesRelatedInstances", "SeriesNumber", "SeriesDescription"]
OF_SERIES = ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "BodyPartExamined")


@dataclass(frozen=True, order=True)
class RemoteSeries:
    """Hold what a PACS says of a series; `uids` are those by which labels refer to it, as far as it tells."""

    study_uid: str
    uid: str
    modality: str
    instances: int
    uids: ImageUids = field(default=ImageUids(), compare=False, repr=False)
    number: str = field(default="", compare=False)
    description: str = field(default="", compare=False, repr=False)

    def is_meant(self, wanted: Sequence[str]) -> bool:
        """Return whether the series is one of those that texts stand for, see `dicom.is_meant`."""
        return is_meant(wanted, uids=[self.uid], number=self.number, description=self.description)


def parse_filters(items: Sequence[str], *, any_modality: bool = False) -> dict[str, str]:
    """Return filters from texts KEYWORD=VALUE; a value is as QIDO-RS has it, `20260101-` for one.

    Args:
        items: the texts.
        any_modality: whether they may take images of any kind.

    Raises:
        PyrasegError: a keyword is none of `OF_STUDIES` and `OF_SERIES`, or the filters take too much.
    """
    filters = {}
    for item in items:
        keyword, _, value = item.partition("=")
        if keyword not in OF_STUDIES + OF_SERIES:
            hint = nearest_hint(keyword, OF_STUDIES + OF_SERIES)
            raise PyrasegError(
                f"A filter is on {', '.join(OF_STUDIES + OF_SERIES)}, not on {keyword or 'nothing'}.{hint} Patient "
                "attributes are left out on purpose: other users can see the arguments of a program."
            )
        if not value:
            raise PyrasegError(f"The filter {keyword} has no value. Write {keyword}=VALUE.")
        filters[keyword] = value
    if "SeriesInstanceUID" in filters and "StudyInstanceUID" not in filters:
        raise PyrasegError("A SeriesInstanceUID is looked for in its study. Give the StudyInstanceUID too.")
    if not any_modality and not {"Modality", "SeriesInstanceUID"} & filters.keys():
        raise PyrasegError("The model is for one kind of image. Give it as a filter, such as Modality=CT.")
    return filters


def find_series(
    client: DICOMwebClient, filters: Mapping[str, str], *, series: Sequence[str] = ()
) -> list[RemoteSeries]:
    """Return the series that match, sorted by UIDs; objects that are no images are left out.

    Studies are searched first, and then the series of each, which every server can do.

    Args:
        client: of the PACS.
        filters: see `parse_filters`.
        series: of these, the ones that texts stand for, see `is_meant`; none for all.

    Raises:
        PacsError: the PACS does not answer, or not as it should.
    """
    of_studies = filters_of_studies(filters)
    of_series = {name: value for name, value in filters.items() if name in OF_SERIES}
    found = set()
    with plain_errors(client):
        for study_uid, study in pages(client.search_for_studies, "StudyInstanceUID", search_filters=of_studies).items():
            search = partial(client.search_for_series, study_uid, fields=FIELDS)
            for answer in pages(search, "SeriesInstanceUID", search_filters=of_series).values():
                found.add(_series(client, study_uid, study, answer))
    return sorted(
        one
        for one in found
        if one.modality not in NON_IMAGES and _is_wanted(one, filters) and (not series or one.is_meant(series))
    )


def filters_of_studies(filters: Mapping[str, str]) -> dict[str, str]:
    """Return the filters by which studies can be searched that may hold such series."""
    of_studies = {name: value for name, value in filters.items() if name in OF_STUDIES}
    if "Modality" in filters:
        of_studies.setdefault("ModalitiesInStudy", filters["Modality"])
    return of_studies


def _series(client: DICOMwebClient, study_uid: str, study: Dataset, answer: Dataset) -> RemoteSeries:
    uid = str(answer.SeriesInstanceUID)
    count = answer.get("NumberOfSeriesRelatedInstances")
    if count is None:  # though PS3.18 Table 10.6.3-4 requires it
        count = len(instances_of(client, RemoteSeries(study_uid, uid, "", 0)))
    modality = str(answer.get("Modality") or "")
    named = Dataset()
    named.update(study)  # whose names the description may have
    named.SeriesDescription = description_of(answer)
    hide_names(named)
    called = {"number": str(answer.get("SeriesNumber") or ""), "description": description_of(named)}
    return RemoteSeries(study_uid, uid, modality, int(count), **called, uids=ImageUids.of_images([answer]))


def instances_of(client: DICOMwebClient, series: RemoteSeries) -> dict[str, Dataset]:
    """Return what a PACS says of the images of a series, by their SOP Instance UIDs.

    Raises:
        PacsError: the PACS does not answer, or not as it should.
    """
    with plain_errors(client):
        return pages(partial(client.search_for_instances, series.study_uid, series.uid), "SOPInstanceUID")


def _is_wanted(series: RemoteSeries, filters: Mapping[str, str]) -> bool:
    """Return whether the PACS has heeded the filters that keep a model from the wrong images."""
    stated = {"Modality": series.modality, "SeriesInstanceUID": series.uid, "StudyInstanceUID": series.study_uid}
    return all(filters.get(name, value) == value for name, value in stated.items())


def pages(search: Callable[..., list[dict]], keyword: str, **options: Any) -> dict[str, Dataset]:
    """Return the answers to a search by UID: all, where a server gives no more than so many at a time.

    The client's own `get_remaining` never ends with a server that does not heed the offset (Orthanc's plug-in 1.7).
    """
    found: dict[str, Dataset] = {}
    while True:
        answers = search(**options, offset=len(found))
        if not all(isinstance(answer, dict) for answer in answers):
            raise PacsError("The answer of the PACS to a search is no DICOM JSON. Is the address that of its DICOMweb?")
        page = {str(item.get(keyword) or ""): item for item in map(Dataset.from_json, answers)}
        if "" in page:
            raise PacsError(f"The PACS answers a search without {keyword}. Is the address that of its DICOMweb?")
        if page.keys() <= found.keys():
            return found
        found.update(page)


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
    with plain_errors(client):
        return [label_of(Dataset.from_json(item)) for item in client.retrieve_series_metadata(study_uid, series_uid)]


def labels_by_series(
    series: Sequence[RemoteSeries], labels: Iterable[RemoteLabel], *, others: Sequence[ImageUids] = ()
) -> dict[str, list[RemoteLabel]]:
    """Return the labels of each series, by its UID; those of none of them are left out.

    Args:
        series: that may have labels.
        labels: of these series and others.
        others: images beside the series, left out by a choice, to which a label may belong instead.
    """
    found: dict[str, list[RemoteLabel]] = {one.uid: [] for one in series}
    images = [*(one.uids for one in series), *others]
    for label in labels:
        for place in images_of(label.references, images):
            if place < len(series):
                found[series[place].uid].append(label)
    return found


def label_of(header: Dataset) -> RemoteLabel:
    """Return what the header of a segmentation says."""
    return RemoteLabel(
        str(header.get("StudyInstanceUID", "")),
        str(header.get("SeriesInstanceUID", "")),
        str(header.get("SOPInstanceUID", "")),
        references_of(header),
        is_automatic(header),
        f"{header.get('ContentDate') or ''}{header.get('ContentTime') or ''}",
    )
