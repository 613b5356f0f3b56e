# SPDX-License-Identifier: Apache-2.0
"""Have an archive send a study here: its series are listed by C-FIND, and asked for by C-MOVE (PS3.4 C.4)."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom import Association, build_context

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import NON_IMAGES, description_of
from bundle.pyraseg_tools.dimse.calling import Caller
from bundle.pyraseg_tools.dimse.contexts import STUDY_FIND, STUDY_MOVE
from bundle.pyraseg_tools.dimse.inbox import require_uid
from bundle.pyraseg_tools.pacs import PacsError, RemoteSeries

logger = logging.getLogger(__name__)

PENDING = (0xFF00, 0xFF01)
#: There is no such destination (PS3.4 C.4.2.1.5).
UNKNOWN_DESTINATION = 0xA801


@dataclass(frozen=True)
class Retrieval:
    """Fetch studies into a listener.

    Attributes:
        caller: this node, whose AE title and port the archive must know, and the archive.
        is_wanted: which of the series of a study are asked for.
    """

    caller: Caller
    is_wanted: Callable[[RemoteSeries], bool]

    def __call__(self, study_uid: str) -> list[RemoteSeries]:
        """Have the wanted series of a study sent to the listener, and return them when they have arrived there.

        Raises:
            PacsError: the archive does not know the study or this node, or has not sent all images.
            PyrasegError: that is no UID.
        """
        require_uid(study_uid, "StudyInstanceUID")
        peer = self.caller.peer
        with self.caller.association([build_context(STUDY_FIND), build_context(STUDY_MOVE)]) as association:
            found = list(self._find(association, study_uid))
            wanted = [one for one in found if one.modality not in NON_IMAGES and self.is_wanted(one)]
            if not wanted:
                raise PacsError(f"{peer} has {len(found)} series in the study {study_uid}, and none of them is wanted.")
            for series in wanted:
                self._move(association, series)
                logger.info("%s: fetched from %s, %s images", series.uid, peer.title, series.instances or "all")
        return wanted

    def _find(self, association: Association, study_uid: str) -> Iterator[RemoteSeries]:
        """Yield the series of a study; the number of images is 0 where the archive does not tell."""
        query = Dataset()
        query.QueryRetrieveLevel, query.StudyInstanceUID = "SERIES", study_uid
        for keyword in ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription"):
            setattr(query, keyword, "" if keyword != "SeriesNumber" else None)
        query.NumberOfSeriesRelatedInstances = None
        for status, answer in self._answers(lambda: association.send_c_find(query, STUDY_FIND)):
            if status.Status in PENDING and answer is not None:
                uid = require_uid(str(answer.get("SeriesInstanceUID") or ""), "SeriesInstanceUID")
                called = {"number": str(answer.get("SeriesNumber") or ""), "description": description_of(answer)}
                count = int(answer.get("NumberOfSeriesRelatedInstances") or 0)
                yield RemoteSeries(study_uid, uid, str(answer.get("Modality") or ""), count, **called)
            elif status.Status:
                raise PacsError(f"{self.caller.peer} does not answer a search ({status.Status:04X}H, PS3.4 C.4.1.1.4).")

    def _move(self, association: Association, series: RemoteSeries) -> None:
        """Have a series sent here, and return when it is.

        The archive counts the answers of the listener, which come when an image lies on the disk.
        """
        query = Dataset()
        query.QueryRetrieveLevel, query.StudyInstanceUID = "SERIES", series.study_uid
        query.SeriesInstanceUID = series.uid
        title, peer = self.caller.title, self.caller.peer
        completed = None
        for status, _ in self._answers(lambda: association.send_c_move(query, title, STUDY_MOVE)):
            if status.Status == UNKNOWN_DESTINATION:
                raise PacsError(f"{peer} does not know where {title} is. Tell it this AE title, host and port.")
            if status.Status not in (0, *PENDING):
                raise PacsError(f"{peer} has not sent the series {series.uid} ({status.Status:04X}H, PS3.4 C.4.2.1.5).")
            completed = status.get("NumberOfCompletedSuboperations")
        if series.instances and completed is not None and completed < series.instances:
            raise PacsError(f"{peer} lists {series.instances} images of the series {series.uid}, and sent {completed}.")

    def _answers(
        self, ask: Callable[[], Iterator[tuple[Dataset, Dataset | None]]]
    ) -> Iterator[tuple[Dataset, Dataset | None]]:
        """Yield the status and the identifier of each answer."""
        try:
            for status, identifier in ask():
                if "Status" not in status:
                    raise PacsError(f"{self.caller.peer} ended the association, or does not answer in time.")
                yield status, identifier
        except (RuntimeError, ValueError) as error:
            if isinstance(error, PyrasegError):
                raise
            raise PacsError(f"{self.caller.peer} offers no search or retrieval of studies.") from error
