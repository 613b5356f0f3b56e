# SPDX-License-Identifier: Apache-2.0
"""TLS in front of a server that speaks plain HTTP, as hospitals have it in front of a PACS."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest


@contextmanager
def tls_in_front_of(port: int, certificate: tuple[Path, Path]) -> Iterator[int]:
    """Yield a loopback port whose connections are decrypted and handed to another.

    Args:
        port: of the plain server.
        certificate: its file and that of its key, PEM.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    class Relay(BaseRequestHandler):
        def handle(self) -> None:
            # A client that distrusts the certificate, or is killed, ends the connection at any point.
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(self.request, server_side=True) as outer,
                socket.create_connection(("127.0.0.1", port)) as inner,
            ):
                answers = threading.Thread(target=_pump, args=(inner, outer), daemon=True)
                answers.start()
                _pump(outer, inner)
                answers.join()

    class Server(ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Relay) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Copy until the source ends, and end the target then."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for localhost and the key that signed it, and return both files."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; it makes the server's certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
