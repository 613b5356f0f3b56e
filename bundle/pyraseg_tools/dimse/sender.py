# SPDX-License-Identifier: Apache-2.0
"""Send results to their destination by C-STORE, and have it vouch for them where it offers that."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset
from pydicom.uid import UID
from pynetdicom import Association, build_context, evt
from pynetdicom.presentation import PresentationContext

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.dimse.calling import Caller
from bundle.pyraseg_tools.dimse.commitment import Commitments
from bundle.pyraseg_tools.dimse.contexts import COMMITMENT, COMMITMENT_INSTANCE, RESULT_SYNTAXES, RESULTS
from bundle.pyraseg_tools.pacs import PacsError

logger = logging.getLogger(__name__)

#: When storage commitment is asked for: where the destination offers it, always (else nothing is sent), or never.
MODES = ("offered", "required", "never")
#: The object lies there by the same UID: it arrived, and the answer got lost (PS3.7 C.5.6).
DUPLICATE = 0x0111


class Sender:
    """Send results, each of which arrives once: they keep their UIDs, whenever and however often they are sent.

    Args:
        caller: this node and the destination.
        commitments: where the answers come.
        commitment: one of `MODES`.
        patience: seconds to wait for a commitment; later the objects are asked about again.
    """

    def __init__(
        self, caller: Caller, commitments: Commitments, *, commitment: str = "offered", patience: float = 60
    ) -> None:
        self.caller, self.commitments = caller, commitments
        self.commitment, self.patience = commitment, patience

    def __call__(self, files: Sequence[Path]) -> str:
        """Send files, and return in words how they arrived.

        Raises:
            PacsError: the destination fails, or does not vouch for them in time.
            PyrasegError: it does not take one.
        """
        datasets = [pydicom.dcmread(file) for file in files]
        instances = [str(dataset.SOPInstanceUID) for dataset in datasets]
        if not self.commitments.all_safe(instances):
            how = self._send(datasets)
        else:
            how = f"stored and committed by {self.caller.peer.title}"  # the answer came after we had stopped waiting
        self.commitments.forget(instances)
        return how

    def _send(self, datasets: Sequence[FileDataset]) -> str:
        contexts = _contexts(datasets)
        handlers = []
        if self.commitment != "never":
            contexts.append(build_context(COMMITMENT))
            handlers.append((evt.EVT_N_EVENT_REPORT, self.commitments.answer))
        with self.caller.association(contexts, handlers=handlers) as association:
            accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
            commits = str(COMMITMENT) in accepted
            if self.commitment == "required" and not commits:
                raise PyrasegError(
                    f"{self.caller.peer} offers no storage commitment, and it is required. Nothing was sent."
                )
            for dataset in datasets:
                self._store(association, dataset, accepted)
            if not commits:
                return f"stored by {self.caller.peer.title}"
            self._commit(association, datasets)
        return f"stored and committed by {self.caller.peer.title}"

    def _store(self, association: Association, dataset: FileDataset, accepted: set[str]) -> None:
        peer, kind = self.caller.peer, UID(dataset.SOPClassUID).name
        if str(dataset.SOPClassUID) not in accepted:
            raise PyrasegError(f"{peer} takes no object of {kind}. Let it, or leave that output out.")
        try:
            answer = association.send_c_store(dataset)
        except ValueError as error:  # no context for its transfer syntax
            raise PyrasegError(f"{peer} takes no {kind} in {dataset.file_meta.TransferSyntaxUID.name}.") from error
        except RuntimeError as error:
            raise PacsError(f"{peer} ended the association.") from error
        status = answer.get("Status")
        if status is None:
            raise PacsError(f"{peer} ended the association, or does not answer in time.")
        if status >> 12 == 0xB:
            logger.warning("%s has changed something in the %s that it took (%04XH)", peer.title, kind, status)
        elif status not in (0, DUPLICATE):
            passing = status >> 8 == 0xA7 or status in (0x0110, 0x0124)  # no room; a failure of it; not permitted
            raise (PacsError if passing else PyrasegError)(
                f"{peer} does not take the {kind} ({status:04X}H, PS3.4 B.2.3). Its own log says why."
            )

    def _commit(self, association: Association, datasets: Sequence[FileDataset]) -> None:
        """Wait until the destination vouches for objects (PS3.4 J.3.2)."""
        peer = self.caller.peer
        objects = [(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)) for dataset in datasets]
        request = self.commitments.ask(objects)
        try:
            answer, _ = association.send_n_action(request, 1, COMMITMENT, COMMITMENT_INSTANCE)
        except RuntimeError as error:
            raise PacsError(f"{peer} ended the association.") from error
        if answer.get("Status") != 0:
            raise PacsError(f"{peer} has the results, and does not take the request to vouch for them.")
        failed = self.commitments.wait([instance for _, instance in objects], self.patience)
        if failed is None:
            raise PacsError(
                f"{peer} has the results, and has not vouched for them within {self.patience:g} s. It is asked again."
            )
        if failed:
            reasons = ", ".join(f"{reason:04X}H" for reason in sorted(set(failed.values())))
            raise PacsError(f"{peer} does not vouch for {len(failed)} of {len(objects)} results ({reasons}).")


def _contexts(datasets: Sequence[FileDataset]) -> list[PresentationContext]:
    """Return what is offered: each class of the objects, in each transfer syntax that one of them can be sent in."""
    offered: dict[tuple[str, str], PresentationContext] = {}
    for dataset in datasets:
        if dataset.SOPClassUID not in RESULTS:
            raise PyrasegError(
                f"A result is of {UID(dataset.SOPClassUID).name}, which this program does not send. Leave it out."
            )
        own = dataset.file_meta.TransferSyntaxUID
        for syntax in [own] if own.is_compressed else RESULT_SYNTAXES:
            offered[dataset.SOPClassUID, syntax] = build_context(dataset.SOPClassUID, syntax)
    return list(offered.values())
