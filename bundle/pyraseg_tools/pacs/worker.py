# SPDX-License-Identifier: Apache-2.0
"""Segment series of a PACS one after the other: fetch, segment, store, read back, remember."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from bundle.pyraseg.core import describe
from bundle.pyraseg.runtime import Model, seg_writer, segment
from bundle.pyraseg_tools.pacs.connection import PacsError, Unavailable
from bundle.pyraseg_tools.pacs.journal import Entry, Journal
from bundle.pyraseg_tools.pacs.search import RemoteSeries, find_series
from bundle.pyraseg_tools.pacs.transfer import fetch_instance, fetch_series, grid_of, holds, require_same, store

logger = logging.getLogger(__name__)


class Worker:
    """Bring the segmentation of every series that a journal does not have as done into the PACS.

    Args:
        client: of the PACS.
        model: an exported model.
        journal: what has been done.
        images: folder for the images of one series at a time.
        select: attributes that the slices of a series must have, where it holds several phases or echoes.
        refuse: in what images may not differ from those that the model is for, see `Purpose`; None: the modality.
        unlike: what is done about series that are unlike those of the training, see `runtime.Watch`.

    Raises:
        PyrasegError: the model has no code for a class.
    """

    def __init__(
        self,
        client: DICOMwebClient,
        model: Model,
        journal: Journal,
        images: Path,
        *,
        select: Mapping[str, object] | None = None,
        refuse: Sequence[str] | None = None,
        unlike: str = "warn",
    ) -> None:
        self.client = client
        self.model = model
        self.journal = journal
        self.images = images
        self.select = select
        self.refuse = refuse
        self.unlike = unlike
        self._write = seg_writer(model)

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
                logger.warning("%s: failed, %s", where, reason)
        return failures

    def segment(self, series: RemoteSeries) -> str:
        """Segment one series, and return what was done in words.

        Raises:
            PyrasegError: see `work_off`.
        """
        with TemporaryDirectory(dir=self.images) as name:
            folder = Path(name)
            files = fetch_series(self.client, series, folder)
            labels = segment(
                self.model,
                [str(file) for file in files],
                select=self.select,
                refuse=self.refuse,
                unlike=self.unlike,
                name=series.uid,
            )
            mask = np.stack(list(labels.slices))
            sent, returned = (
                self._write(replace(labels, slices=iter(mask)), folder / "sent")[0],
                folder / "returned.dcm",
            )
            own = self._store(series, pydicom.dcmread(sent))
            if not holds(self.client, series.study_uid, *own):
                raise PacsError("the PACS took the segmentation, but a search does not find it.")
            fetch_instance(self.client, series.study_uid, *own, returned)
            require_same(returned, sent, mask, grid_of(labels), self.model.structures)
        self.journal[series.uid] = Entry("stored", series.instances, own)
        structures = self.model.structures
        counts = [(name, structures.mask(mask, number).sum()) for number, name in enumerate(structures.names)][1:]
        voxels = ", ".join(f"{name} {count}" for name, count in counts)
        return f"{series.instances} images -> {own[1]}, read back equal (voxels: {voxels})"

    def _store(self, series: RemoteSeries, segmentation: Dataset) -> tuple[str, str]:
        """Store a segmentation, unless the one of a run that was stopped has arrived; return its series and own UID.

        The journal says what is on its way before it is sent. So a stop at any point leaves one segmentation, not two.
        """
        entry = self.journal[series.uid]
        sent = entry.segmentation if entry is not None and entry.status == "storing" else ()
        same = entry is not None and entry.instances == series.instances
        if same and sent and holds(self.client, series.study_uid, *sent):
            return sent
        own = str(segmentation.SeriesInstanceUID), str(segmentation.SOPInstanceUID)
        self.journal[series.uid] = Entry("storing", series.instances, own)
        store(self.client, segmentation)
        return own


def is_due(series: RemoteSeries, entry: Entry | None) -> bool:
    """Return whether a series is new, unfinished, or has other images than it had."""
    return entry is None or entry.status == "storing" or entry.instances != series.instances


def watch(worker: Worker, filters: Mapping[str, str], *, series: Sequence[str] = (), seconds: float) -> None:
    """Look for series again and again, and segment those that have stopped growing since the look before.

    A PACS that cannot be reached is waited for, but not at the first look: then the address may be wrong.

    Raises:
        PyrasegError: at the first look.
    """
    logger.info("Looking for series every %g s", seconds)
    before: set[RemoteSeries] | None = None
    while True:
        try:
            found = find_series(worker.client, filters, series=series)
            if before is not None:
                worker.work_off(one for one in found if one in before)
            before = set(found)
        except PacsError as error:
            if before is None:
                raise
            logger.warning("%s Looking again in %g s.", error, seconds)
        time.sleep(seconds)
