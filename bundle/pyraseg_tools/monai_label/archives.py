# SPDX-License-Identifier: Apache-2.0
"""Where the DICOM series and their segmentations are: a PACS, or a folder of any depth."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pydicom
from pydicom.dataset import Dataset

from bundle.pyraseg.core import replacing
from bundle.pyraseg.dicom import Scan, Series, scan_files
from bundle.pyraseg.labels import ImageUids
from bundle.pyraseg_tools.pacs import (
    RemoteLabel,
    RemoteSeries,
    connect,
    fetch_instance,
    fetch_series,
    find_label_series,
    find_series,
    label_of,
    open_session,
    read_label_series,
    store,
)


class Archive(Protocol):
    """What a label server asks of the place where images are.

    Attributes:
        name: what it is called, for people.
        others: the images beside the series that were found last, to which a label may belong instead.
    """

    name: str
    others: list[ImageUids]

    def series(self) -> list[RemoteSeries]:
        """Return the series to label."""

    def labels(self) -> list[RemoteLabel]:
        """Return the segmentations of these series, after `series`."""

    def fetch(self, series: RemoteSeries, folder: Path) -> None:
        """Put the files of a series into an empty folder, as `*.dcm`."""

    def fetch_label(self, label: RemoteLabel, path: Path) -> None:
        """Write a segmentation to a file."""

    def store(self, segmentation: Dataset) -> None:
        """Keep a segmentation."""


class PacsArchive:
    """Series that a PACS finds by filters (`pacs.search.parse_filters`).

    Args:
        url: of its DICOMweb.
        filters: which series.
        series: of these, the ones that texts stand for, see `is_meant`; none for all.
        access: how it is reached; see `pacs.connection.open_session`.
    """

    def __init__(self, url: str, filters: Mapping[str, str], *, series: Sequence[str] = (), **access: Any) -> None:
        self.client = connect(url, **access)
        self.session = open_session(url, **access)
        self.name = str(self.client.base_url)
        self.filters = filters
        self.wanted = series
        #: The studies of the series that were found last.
        self.studies: set[str] = set()
        self.others: list[ImageUids] = []
        self._known: dict[tuple[str, str], list[RemoteLabel]] = {}

    def series(self) -> list[RemoteSeries]:
        found = find_series(self.client, self.filters)
        served = [series for series in found if not self.wanted or series.is_meant(self.wanted)]
        self.others = [series.uids for series in found if series not in served]
        self.studies = {series.study_uid for series in served}
        return served

    def labels(self) -> list[RemoteLabel]:
        labels = []
        for study_uid in sorted(self.studies):
            for found in find_label_series(self.client, study_uid):
                if found not in self._known:  # a stored object does not change
                    self._known[found] = read_label_series(self.client, study_uid, found[0])
                labels += self._known[found]
        return labels

    def fetch(self, series: RemoteSeries, folder: Path) -> None:
        fetch_series(self.client, series, folder)

    def fetch_label(self, label: RemoteLabel, path: Path) -> None:
        fetch_instance(self.client, label.study_uid, label.series_uid, label.uid, path)

    def store(self, segmentation: Dataset) -> None:
        store(self.client, segmentation)


class FolderArchive:
    """Series in a folder, whatever their files are called; segmentations are added in its sub-folder `labels`.

    Args:
        folder: of the series.
        series: the ones that texts stand for, see `is_meant`; none for all.
    """

    def __init__(self, folder: Path, *, series: Sequence[str] = ()) -> None:
        self.name = str(folder)
        self.wanted = series
        self.folder = folder
        self.others: list[ImageUids] = []
        self._files: dict[Path, int] = {}
        self._scan = Scan(folder, (), {})
        self._known: dict[tuple[Path, int], RemoteLabel] = {}
        self._labels: dict[str, Path] = {}

    def _scanned(self) -> Scan:
        """Return what lies in the folder, read anew where a file has come, gone or changed; labels are looked at apart.

        So a submitted label does not cost the headers of all images.
        """
        own = self.folder / "labels"
        files = {file: file.stat().st_mtime_ns for file in self.folder.rglob("*") if file.is_file()}
        files = {file: time for file, time in files.items() if not file.is_relative_to(own)}
        if files != self._files:
            self._scan, self._files = scan_files(sorted(files), root=self.folder), files
        return self._scan

    def series(self) -> list[RemoteSeries]:
        served, self.others = [], []
        for series in self._scanned().series:
            uid, uids = _image_id(series), ImageUids.of_images(series.headers)
            if uid and (not self.wanted or series.is_meant(self.wanted)):  # no client could call one without a UID
                served.append(RemoteSeries(series.study_uid, uid, series.modality, len(series.files), uids))
            else:
                self.others.append(uids)
        return served

    def labels(self) -> list[RemoteLabel]:
        found = [*self._scanned().skipped_files.get("SEG object", ()), *(self.folder / "labels").glob("*.dcm")]
        states = {file: (file, file.stat().st_mtime_ns) for file in found}
        for file, state in states.items():
            if state not in self._known:  # a header with a group for each frame is long
                self._known[state] = label_of(pydicom.dcmread(file, stop_before_pixels=True))
        self._labels = {self._known[state].uid: file for file, state in states.items()}
        return [self._known[state] for state in states.values()]

    def fetch(self, series: RemoteSeries, folder: Path) -> None:
        (files,) = [found.files for found in self._scanned().series if _image_id(found) == series.uid]
        for number, file in enumerate(files):
            (folder / f"{number:06d}.dcm").symlink_to(file.resolve())

    def fetch_label(self, label: RemoteLabel, path: Path) -> None:
        shutil.copyfile(self._labels[label.uid], path)

    def store(self, segmentation: Dataset) -> None:
        with replacing(self.folder / "labels" / f"{segmentation.SOPInstanceUID}.dcm") as temporary:
            segmentation.save_as(temporary)


def _image_id(series: Series) -> str:
    """Return the UID that stands for a series alone, for one of several views that of its image; or nothing."""
    if series.view_of:
        return str(series.headers[0].get("SOPInstanceUID") or "")
    return series.uid if series.has_uid else ""
