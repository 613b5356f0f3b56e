# SPDX-License-Identifier: Apache-2.0
"""A real PACS for tests: Orthanc with its DICOMweb plug-in, from Debian, on a loopback port, with a password.

Orthanc 1.10.1 of Debian 12 dies of its first request where its own TLS is on; so TLS stands in front of it.
"""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
import requests
from pydicom.dataset import Dataset

from tests.helpers.tls import self_signed, tls_in_front_of

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "ward", "a pass: wörd"


@dataclass(frozen=True)
class Orthanc:
    """A running server.

    Attributes:
        url: of its DICOMweb, by TLS.
        plain_url: of Orthanc itself, without.
        ca_bundle: the certificate that is shown, which has signed itself.
        log: file of what it says.
    """

    url: str
    plain_url: str
    ca_bundle: Path
    log: Path

    def rest(self, method: str, path: str, **options: object) -> requests.Response:
        """Ask Orthanc in its own language, which is not that of the code under test."""
        auth = (USER.encode(), PASSWORD.encode())
        response = requests.request(method, self.plain_url + path, auth=auth, timeout=30, **options)
        response.raise_for_status()
        return response

    def add(self, files: Iterable[Path]) -> None:
        for file in files:
            self.rest("POST", "/instances", data=file.read_bytes())

    def instances(self, **query: str) -> list[Path]:
        """Return the identifiers of the objects that match."""
        return self.rest("POST", "/tools/find", json={"Level": "Instance", "Query": query}).json()

    def read(self, identifier: str, path: Path) -> Dataset:
        path.write_bytes(self.rest("GET", f"/instances/{identifier}/file").content)
        return pydicom.dcmread(path)

    def remove(self, **query: str) -> None:
        for identifier in self.instances(**query):
            self.rest("DELETE", f"/instances/{identifier}")


@contextmanager
def running(folder: Path, **more: object) -> Iterator[Orthanc]:
    """Start a server with an empty storage, and stop it; skip the test where it is not installed.

    Args:
        folder: of its files.
        more: settings of its own.
    """
    program = shutil.which("Orthanc")
    if program is None or not PLUGIN.is_file():
        pytest.skip("Orthanc with its DICOMweb plug-in is not installed: apt-get install orthanc orthanc-dicomweb")
    certificate = self_signed(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "Plugins": [str(PLUGIN)],
        **more,
    }
    (folder / "storage").mkdir()
    (folder / "orthanc.json").write_text(json.dumps(settings))
    log = folder / "orthanc.log"
    with log.open("w") as output, tls_in_front_of(port, certificate) as secure_port:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=output, stderr=subprocess.STDOUT)
        server = Orthanc(f"https://localhost:{secure_port}/dicom-web", f"http://localhost:{port}", certificate[0], log)
        try:
            _wait_for(server, process)
            yield server
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(server: Orthanc, process: subprocess.Popen) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"Orthanc ended: {server.log.read_text()[-2000:]}")
        try:
            server.rest("GET", "/system")
            return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise RuntimeError(f"Orthanc does not answer: {server.log.read_text()[-2000:]}")
