# SPDX-License-Identifier: Apache-2.0
"""Take images from known nodes by C-STORE; answer C-ECHO, and reports of storage commitment."""

import logging
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from pynetdicom import AE, _config, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.transport import ThreadedAssociationServer

from bundle.pyraseg.core import DiskError, PyrasegError, describe
from bundle.pyraseg_tools.dimse.commitment import Commitments
from bundle.pyraseg_tools.dimse.contexts import COMMITMENT, IMAGE_SYNTAXES, IMAGES, VERIFICATION, Status
from bundle.pyraseg_tools.dimse.inbox import Inbox, Mismatch, NoRoom, NotUnderstood
from bundle.pyraseg_tools.dimse.server import Server

logger = logging.getLogger(__name__)

#: What a caller may send in one PDU.
PDU_BYTES = 2**17
MOST_ASSOCIATIONS = 10


@dataclass(frozen=True)
class Timeouts:
    """Hold how long is waited, in seconds.

    Attributes:
        connection: for a connection to be made.
        acse: for an association to be agreed on or ended.
        dimse: for the answer to a request; of C-MOVE and C-FIND, the next one.
        network: for a silent peer to go on.
    """

    connection: float = 10
    acse: float = 30
    dimse: float = 120
    network: float = 120

    def apply(self, entity: AE) -> None:
        """Give them to an application entity."""
        entity.connection_timeout, entity.acse_timeout = self.connection, self.acse
        entity.dimse_timeout, entity.network_timeout = self.dimse, self.network


TIMEOUTS = Timeouts()


def keep_silent() -> None:
    """Let pynetdicom log nothing of its own: it quotes what peers send, and with it patients."""
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)


class Listener:
    """Be a storage SCP from `start` to `stop`.

    Args:
        inbox: where images go.
        commitments: where reports go.
        title: the AE title of this node; a caller that asks for another is refused.
        peers: AE titles that may call; all others are refused.
        address: of this machine, to listen at, and the port; 0 for any that is free.
        tls: for TLS, else callers come without.
        timeouts: how long is waited.
    """

    def __init__(
        self,
        inbox: Inbox,
        commitments: Commitments,
        *,
        title: str,
        peers: Sequence[str],
        address: tuple[str, int],
        tls: ssl.SSLContext | None = None,
        timeouts: Timeouts = TIMEOUTS,
    ) -> None:
        if not peers:
            raise PyrasegError("No AE title may call, so nothing would ever come. Name those that may.")
        keep_silent()
        self.inbox = inbox
        self.address, self.tls = address, tls
        self._received: dict[int, int] = {}
        self._entity = _entity(title, peers, timeouts)
        self._handlers: list[EventHandlerType] = [
            (evt.EVT_C_ECHO, lambda _: Status.SUCCESS),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_EVENT_REPORT, commitments.answer),
            (evt.EVT_REJECTED, self._tell_refused),
            (evt.EVT_PDU_RECV, self._count),
            (evt.EVT_DIMSE_RECV, self._begin_anew),
            (evt.EVT_CONN_CLOSE, self._begin_anew),
        ]
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> int:
        """Begin to listen, and return the port.

        Raises:
            PyrasegError: the address is not of this machine, or the port is in use or not for this user.
        """
        try:
            server = self._entity.make_server(
                self.address, server_class=Server, ssl_context=self.tls, evt_handlers=self._handlers
            )
        except OSError as error:
            raise PyrasegError(
                f"Nothing can be received at {self.address[0]}, port {self.address[1]}: {error.strerror}. Give another "
                "address or port; ports below 1024 are for the administrator."
            ) from error
        self._entity._servers.append(server)  # which its `shutdown` takes out again
        threading.Thread(target=server.serve_forever, name="listener", daemon=True).start()
        self._server = server
        return int(server.server_address[1])

    def stop(self) -> None:
        """End the associations that are open, and listen no more."""
        if self._server is not None:
            self._server.shutdown()
            for association in self._server.active_associations:
                association.abort()
            self._server = None

    def _store(self, event: Event) -> int:
        """Answer a C-STORE request when the object lies on the disk."""
        caller = repr(event.assoc.requestor.ae_title)
        request = cast(C_STORE, event.request)
        named = {"sop_class": str(request.AffectedSOPClassUID), "instance": str(request.AffectedSOPInstanceUID)}
        try:
            self.inbox.receive(event.encoded_dataset(), **named)
            return Status.SUCCESS
        except (NoRoom, DiskError) as error:
            status, reason = Status.NO_ROOM, str(error)
        except Mismatch as error:
            status, reason = Status.MISMATCH, str(error)
        except NotUnderstood as error:
            status, reason = Status.NOT_UNDERSTOOD, str(error)
        except Exception as error:  # pynetdicom would answer, and say nothing
            status, reason = Status.NOT_UNDERSTOOD, describe(error)
        logger.warning("Refused an object of %s (%04XH): %s", caller, int(status), reason)
        return status

    def _tell_refused(self, event: Event) -> None:
        caller = event.assoc.requestor
        called = caller.primitive.called_ae_title if caller.primitive is not None else ""
        logger.warning(
            "Refused %r at %s, who asked for %r: the AE titles are not those agreed on, or too many call",
            caller.ae_title,
            caller.address,
            called,
        )

    def _count(self, event: Event) -> None:
        """Break off a message that grows beyond what an object may have: it is in memory until it is whole."""
        key = id(event.assoc)
        self._received[key] = self._received.get(key, 0) + len(event.pdu)
        if self._received[key] > self.inbox.limits.object_bytes:
            caller = repr(event.assoc.requestor.ae_title)
            logger.warning("Broke off %s: an object is larger than may be, or two came at a time", caller)
            self._received.pop(key)
            event.assoc.abort()

    def _begin_anew(self, event: Event) -> None:
        self._received.pop(id(event.assoc), None)


def _entity(title: str, peers: Sequence[str], timeouts: Timeouts) -> AE:
    """Return what other nodes see of this one."""
    entity = AE(ae_title=title)
    entity.require_called_aet = True
    entity.require_calling_aet = list(peers)
    entity.maximum_associations = MOST_ASSOCIATIONS
    entity.maximum_pdu_size = PDU_BYTES
    timeouts.apply(entity)
    for sop_class in IMAGES:
        entity.add_supported_context(sop_class, list(IMAGE_SYNTAXES))
    entity.add_supported_context(VERIFICATION)
    # Here the caller is the one that provides the service, and this node its user (PS3.4 J.3.3).
    entity.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
    return entity
