# SPDX-License-Identifier: Apache-2.0
"""Segment series one after the other: fetch, segment, deliver, remember. How they come and go is up to an archive."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from dicomweb_client.api import DICOMwebClient

from bundle.pyraseg.core import PyrasegError, describe
from bundle.pyraseg_tools.pacs.connection import PacsError, Unavailable
from bundle.pyraseg_tools.pacs.journal import Entry, Journal
from bundle.pyraseg_tools.pacs.outbox import Outbox, objects_of
from bundle.pyraseg_tools.pacs.search import RemoteSeries, find_series
from bundle.pyraseg_tools.pacs.segmenters import Segmenter

logger = logging.getLogger(__name__)


class Archive(Protocol):
    """Where series come from, and results go.

    Both raise `Unavailable` where there is no way to it, another `PacsError` for what may succeed another time, and
    `PyrasegError` for what will not.
    """

    def fetch(self, series: RemoteSeries, folder: Path) -> list[Path]:
        """Bring the images of a series into an empty folder, and return their files."""
        ...

    def deliver(self, results: Sequence[Path], folder: Path) -> str:
        """Store DICOM files, make sure that they have arrived, and return in words how; the folder is for its own use.

        It may be called again with the same files, of which some have arrived; none may be there twice then.
        """
        ...


class Worker:
    """Bring the results of every series that a journal does not have as done into an archive.

    What was made of a series lies in the outbox from before the journal has it as on its way until it has arrived. So a
    stop at any point sends the same objects again, and neither loses nor doubles one.

    Args:
        archive: where series come from and results go.
        segmenter: makes the results.
        journal: what has been done.
        images: folder for the images of one series at a time.
        outbox: what is on its way; what the journal does not know is removed.
    """

    def __init__(
        self, archive: Archive, segmenter: Segmenter, journal: Journal, *, images: Path, outbox: Outbox
    ) -> None:
        self.archive = archive
        self.segmenter = segmenter
        self.journal = journal
        self.images = images
        self.outbox = outbox
        outbox.keep_only(journal.of_status("storing"))

    def work_off(self, found: Iterable[RemoteSeries]) -> int:
        """Segment the series that are due, whatever becomes of the others, and return how many failed.

        What fails because of the series is remembered, and not tried again before its images change. What fails because
        of the PACS or of this machine is tried again the next time.

        Raises:
            Unavailable: there is no way to the PACS.
        """
        due = [series for series in found if is_due(series, self.journal[series.uid])]
        failures = 0
        for number, series in enumerate(due, 1):
            where = f"[{number}/{len(due)}] {series.uid}"
            try:
                logger.info("%s: %s", where, self.segment(series))
            except Unavailable:
                raise
            except (PacsError, OSError, MemoryError) as error:
                failures += 1
                logger.warning("%s: not segmented this time, %s", where, describe(error))
            except Exception as error:
                failures += 1
                reason = describe(error)
                self.journal[series.uid] = Entry("failed", series.instances, reason=reason)
                self.outbox.remove(series.uid)
                logger.warning("%s: failed, %s", where, reason)
        return failures

    def segment(self, series: RemoteSeries) -> str:
        """Segment one series, and return what was done in words.

        Raises:
            PyrasegError: see `work_off`.
        """
        with TemporaryDirectory(dir=self.images) as name:
            results, found = self._unsent(series), ""
            if not results:
                results, found = self._make(series, Path(name))
            (returned := Path(name) / "returned").mkdir()
            how = self.archive.deliver(results, returned)
        objects = objects_of(results)
        self.journal[series.uid] = Entry("stored", series.instances, objects)
        self.outbox.remove(series.uid)
        uids = ", ".join(uid for _, uid in objects)
        return f"{series.instances} images -> {uids}, {how}{f' ({found})' if found else ''}"

    def _make(self, series: RemoteSeries, folder: Path) -> tuple[list[Path], str]:
        """Segment a series and put the results into the outbox; return them, and what was found in words."""
        (images := folder / "images").mkdir()
        files = self.archive.fetch(series, images)
        with self.outbox.filling(series.uid) as filled:
            found = self.segmenter(files, filled, name=series.uid)
        results = self.outbox.files(series.uid)
        if not results:
            raise PyrasegError("no DICOM object was made of it. Name an output that is one, such as seg.")
        self.journal[series.uid] = Entry("storing", series.instances, objects_of(results))
        return results, found

    def _unsent(self, series: RemoteSeries) -> list[Path]:
        """Return the results of a run that was stopped, where they are of the images that the series has now."""
        entry = self.journal[series.uid]
        if entry is None or entry.status != "storing" or entry.instances != series.instances:
            return []
        results = self.outbox.files(series.uid)
        return results if objects_of(results) == entry.objects else []


def is_due(series: RemoteSeries, entry: Entry | None) -> bool:
    """Return whether a series is new, unfinished, or has other images than it had."""
    return entry is None or entry.status == "storing" or entry.instances != series.instances


def watch(
    client: DICOMwebClient,
    worker: Worker,
    filters: Mapping[str, str],
    *,
    series: Sequence[str] = (),
    seconds: float,
) -> None:
    """Look for series of a PACS again and again, and segment those that have stopped growing since the look before.

    A PACS that cannot be reached is waited for, but not at the first look: then the address may be wrong.

    Raises:
        PyrasegError: at the first look.
    """
    logger.info("Looking for series every %g s", seconds)
    before: set[RemoteSeries] | None = None
    while True:
        try:
            found = find_series(client, filters, series=series)
            if before is not None:
                worker.work_off(one for one in found if one in before)
            before = set(found)
        except PacsError as error:
            if before is None:
                raise
            logger.warning("%s Looking again in %g s.", error, seconds)
        time.sleep(seconds)
