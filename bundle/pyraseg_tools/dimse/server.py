# SPDX-License-Identifier: Apache-2.0
"""A server for associations that no caller can stall or flood, known or not.

pynetdicom 3.0.4 reads as many bytes as the length of a PDU says, up to 4 GB, before it knows who calls; waits without
limit for the rest of a PDU; and greets callers of TLS one after the other, so that a silent one keeps all others out.
"""

import logging
import socket
import ssl
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from pynetdicom import Association
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from bundle.pyraseg.core import describe

logger = logging.getLogger(__name__)

#: What this node offers to take is less; a request for an association has its own length, of some kilobytes.
MOST_BYTES_OF_A_PDU = 2**20


class _Handler(RequestHandler):
    """Serve one connection in a thread of its own."""

    def handle(self) -> None:
        request = cast(socket.socket, self.request)
        request.settimeout(self.ae.network_timeout)
        if isinstance(request, ssl.SSLSocket):
            try:
                request.do_handshake()
            except OSError as error:
                reason = error.reason if isinstance(error, ssl.SSLError) else type(error).__name__
                logger.warning("Refused %s: no TLS, or not by a certificate that is trusted (%s)", self._host, reason)
                request.close()
                return
        super().handle()

    def _create_association(self) -> Association:
        association = super()._create_association()
        stream = cast(AssociationSocket, association.dul.socket)
        stream.recv = partial(_read, stream.recv)  # a socket of another class would begin the association twice
        return association

    @property
    def _host(self) -> str:
        return str(self.client_address[0])


def _read(read: Callable[[int], bytearray], size: int) -> bytearray:
    """Read so many bytes, and refuse a PDU that is longer than any that was agreed on."""
    if size > MOST_BYTES_OF_A_PDU:
        raise OSError(f"a PDU of {size} bytes was announced")  # ends the connection
    return read(size)


class Server(ThreadedAssociationServer):
    """Accept connections, and leave the rest to their threads."""

    daemon_threads = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, request_handler=_Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = cast(socket.socket, self.socket).accept()
        if self.ssl_context is not None:
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: object, client_address: Any) -> None:
        error = sys.exc_info()[1] or RuntimeError()
        logger.warning("A connection from %s ended by %s", client_address[0], describe(error))
