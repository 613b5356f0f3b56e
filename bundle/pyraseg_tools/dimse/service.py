# SPDX-License-Identifier: Apache-2.0
"""Segment what the inbox holds, study by study, as soon as each is complete."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bundle.pyraseg_tools.dimse.inbox import Inbox
from bundle.pyraseg_tools.dimse.sender import Sender
from bundle.pyraseg_tools.pacs import Journal, PacsError, RemoteSeries, Unavailable, Worker

logger = logging.getLogger(__name__)

#: Which received images stay: those of series that failed, all, or none. Those of results under way always do.
KEEP = ("failed", "all", "none")
#: Seconds between two looks at the inbox.
LOOK = 0.5


class NodeArchive:
    """Be an inbox and a destination, for a `Worker`."""

    def __init__(self, inbox: Inbox, sender: Sender) -> None:
        self.inbox, self.sender = inbox, sender

    def fetch(self, series: RemoteSeries, folder: Path) -> list[Path]:
        """Put links to the images of a series into a folder, so that what comes in the meantime is not among them.

        Raises:
            PacsError: others have come since the series was described.
        """
        files = self.inbox.files(series)
        if len(files) != series.instances:
            raise PacsError(f"{series.instances} images were there, and now {len(files)} are: still arriving.")
        for file in files:
            try:
                os.link(file, folder / file.name)
            except OSError:  # a disk without links
                shutil.copyfile(file, folder / file.name)
        return [folder / file.name for file in files]

    def deliver(self, results: Sequence[Path], folder: Path) -> str:
        """See `Sender`."""
        return self.sender(results)


def attend(
    inbox: Inbox,
    worker: Worker,
    *,
    quiet: float,
    retry: float,
    keep: str = "failed",
    is_wanted: Callable[[RemoteSeries], bool] = lambda _: True,
    once: bool = False,
) -> None:
    """Segment each study to which nothing has come for a while, until this process is stopped.

    Args:
        inbox: what has arrived.
        worker: segments and delivers.
        quiet: seconds without a new image after which a study is complete.
        retry: seconds after which what failed for another reason than its images is tried again.
        keep: one of `KEEP`.
        is_wanted: which series are segmented; the others are removed.
        once: return when nothing is left to do or to wait for, instead.
    """
    while True:
        for study_uid in inbox.complete(quiet):
            begun = time.monotonic()
            series = inbox.series(study_uid)
            wanted = [one for one in series if is_wanted(one)]
            for one in series:
                if one not in wanted and keep != "all":
                    logger.info("%s: not asked for, %s images removed", one.uid, one.instances)
                    inbox.remove(one)
            late = {one.uid for one in wanted if _is_late(one, worker.journal)}
            try:
                worker.work_off(one for one in wanted if one.uid not in late)
            except Unavailable as error:
                logger.warning("%s Trying again in %g s; nothing is lost.", error, retry)
            states = {one.uid: _tidy(inbox, worker.journal, one, keep) for one in wanted if one.uid not in late}
            if all(states.values()):
                inbox.settle(study_uid, begun)
            else:
                inbox.postpone(study_uid, retry, quiet)
        if once and inbox.is_settled:
            return
        time.sleep(LOOK)


def _is_late(series: RemoteSeries, journal: Journal) -> bool:
    """Return whether the series was done with more images, which were removed: these alone are not it."""
    entry = journal[series.uid]
    if entry is None or entry.status != "stored" or series.instances >= entry.instances:
        return False
    logger.warning(
        "%s: %d images came after the series was segmented with %d and removed. Send the whole series again if they "
        "are new; a longer quiet time prevents this.",
        series.uid,
        series.instances,
        entry.instances,
    )
    return True


def _tidy(inbox: Inbox, journal: Journal, series: RemoteSeries, keep: str) -> bool:
    """Remove the images of a series that are needed no more, and return whether nothing is left to do for it."""
    entry = journal[series.uid]
    done = entry is not None and entry.instances == series.instances and entry.status in ("stored", "failed")
    if entry is not None and done and (keep == "none" or (keep == "failed" and entry.status == "stored")):
        inbox.remove(series)
    return done
