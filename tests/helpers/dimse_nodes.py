# SPDX-License-Identifier: Apache-2.0
"""Other DICOM nodes for tests, made of pynetdicom: a sender, and an archive that stores, vouches, lists and sends."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless, SegmentationStorage
from pynetdicom import AE, AllStoragePresentationContexts, Association, build_context, build_role, evt
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)


def until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def calling(
    port: int,
    *,
    classes: Iterable[str] = (Verification,),
    title: str = "CT1",
    called: str = "PYRASEG",
    tls: ssl.SSLContext | None = None,
    syntax: str | None = None,
) -> Iterator[Association]:
    """Yield an association with a node on this machine, which may have been refused."""
    entity = AE(ae_title=title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    contexts = [build_context(one, syntax) if syntax else build_context(one) for one in classes]
    association = entity.associate(
        "127.0.0.1", port, contexts, ae_title=called, tls_args=(tls, "localhost") if tls else None
    )
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def send(files: Sequence[Path], port: int, **options: object) -> list[int | None]:
    """Send files by C-STORE, and return the status of each; None where there is no association."""
    images = [pydicom.dcmread(file) for file in files]
    classes = {str(image.SOPClassUID) for image in images}
    syntax = str(images[0].file_meta.TransferSyntaxUID)
    with calling(port, classes=classes, syntax=syntax, **options) as association:
        if not association.is_established:
            return [None] * len(images)
        return [association.send_c_store(image).get("Status") for image in images]


@dataclass
class Archive:
    """Be an archive: a storage SCP that keeps what it was sent, and more where asked.

    Attributes:
        vouches: "never", in the "same" association, in a "new" one, or "later": when `vouch` is called.
        status: answer to a C-STORE.
        failing: reason why no object is safe, else 0.
        where: title and port of the listener, which it calls.
        images: files that can be found and moved.
        missing: how many images of a series it does not send.
    """

    vouches: str = "never"
    status: int = 0
    failing: int = 0
    where: tuple[str, int] = ("PYRASEG", 0)
    images: Sequence[Path] = ()
    missing: int = 0
    port: int = 0
    stored: list[Dataset] = field(default_factory=list)
    requests: list[Dataset] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    @property
    def uids(self) -> list[str]:
        """Return the UIDs of what it was sent, in the order of arrival."""
        return [str(one.SOPInstanceUID) for one in self.stored]

    @contextmanager
    def running(self, port: int = 0) -> Iterator["Archive"]:
        entity = AE(ae_title="ARCHIVE")
        entity.supported_contexts = AllStoragePresentationContexts
        entity.add_supported_context(SegmentationStorage, RLELossless)
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
        if self.vouches != "never":
            entity.add_supported_context(StorageCommitmentPushModel)
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._asked),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_MOVE, self._move),
        ]
        server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=self.tls)
        self.port = server.server_address[1]
        try:
            yield self
        finally:
            server.shutdown()

    def _store(self, event: evt.Event) -> int:
        if not self.status:
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            self.stored.append(dataset)
        return self.status

    def _asked(self, event: evt.Event) -> tuple[int, None]:
        self.requests.append(event.action_information)
        if self.vouches in ("same", "new"):
            association = event.assoc if self.vouches == "same" else None
            threading.Thread(target=self.vouch, args=(association,), daemon=True).start()
        return 0, None

    def vouch(self, association: Association | None = None, *, transaction: str = "") -> int | None:
        """Say of the last request that its objects are safe or not; return the answer."""
        if association is None:
            entity = AE(ae_title="ARCHIVE")
            entity.add_requested_context(StorageCommitmentPushModel)
            role = build_role(StorageCommitmentPushModel, scp_role=True)
            title, port = self.where
            association = entity.associate("127.0.0.1", port, ae_title=title, ext_neg=[role])
            try:
                return self._report(association, transaction)
            finally:
                association.release()
        time.sleep(0.1)  # the answer to the request goes first
        return self._report(association, transaction)

    def _report(self, association: Association, transaction: str) -> int | None:
        request, report = self.requests[-1], Dataset()
        report.TransactionUID = transaction or request.TransactionUID
        if not self.failing:
            report.ReferencedSOPSequence = request.ReferencedSOPSequence
        else:
            report.FailedSOPSequence = request.ReferencedSOPSequence
            for item in report.FailedSOPSequence:
                item.FailureReason = self.failing
        kind = 2 if self.failing else 1
        status, _ = association.send_n_event_report(
            report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        return status.get("Status")

    def _headers(self, event: evt.Event) -> list[tuple[Path, Dataset]]:
        asked = event.identifier
        found = [(file, pydicom.dcmread(file)) for file in self.images]
        keys = [key for key in ("StudyInstanceUID", "SeriesInstanceUID") if asked.get(key)]
        return [(file, one) for file, one in found if all(one[key].value == asked[key].value for key in keys)]

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        found = [header for _, header in self._headers(event)]
        for uid in sorted({str(one.SeriesInstanceUID) for one in found}):
            own = [one for one in found if one.SeriesInstanceUID == uid]
            answer = Dataset()
            answer.QueryRetrieveLevel, answer.StudyInstanceUID = "SERIES", own[0].StudyInstanceUID
            answer.SeriesInstanceUID, answer.Modality = uid, own[0].Modality
            answer.SeriesNumber, answer.SeriesDescription = own[0].get("SeriesNumber"), "Portal"
            answer.NumberOfSeriesRelatedInstances = len(own)
            yield 0xFF00, answer

    def _move(self, event: evt.Event) -> Iterator[object]:
        title, port = self.where
        if event.move_destination != title:
            yield None, None
            return
        found = [header for _, header in self._headers(event)][self.missing :]
        yield "127.0.0.1", port, {"contexts": [build_context(one) for one in {str(o.SOPClassUID) for o in found}]}
        yield len(found)
        for one in found:
            yield 0xFF00, one
