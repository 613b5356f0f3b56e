# SPDX-License-Identifier: Apache-2.0
"""What is refused on the way to a PACS, in one line each."""

import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.commands.pacs import main
from bundle.pyraseg_tools.pacs import worker
from bundle.pyraseg_tools.pacs.connection import PASSWORD, TOKEN, USER, PacsError, Unavailable, connect
from bundle.pyraseg_tools.pacs.search import find_series, parse_filters
from tests.helpers.orthanc import running
from tests.helpers.pacs_series import small_series

ROOT = Path(__file__).resolve().parents[3]
URL = "https://pacs.example.org/dicom-web"


@pytest.mark.parametrize(
    ("url", "environment", "text"),
    [
        ("pacs.example.org", {}, "is no address"),
        ("ftp://pacs.example.org", {}, "is no address"),
        ("https://me:secret@pacs.example.org/x", {}, "with credentials in it"),
        ("http://pacs.example.org/x", {}, "--allow-http"),
        ("http://pacs.example.org/x", {USER: "a", PASSWORD: "b"}, "not sent without encryption"),
        ("http://pacs.example.org/x", {TOKEN: "a"}, "not sent without encryption"),
        (URL, {USER: "a"}, "Set both"),
        (URL, {USER: "a", PASSWORD: "b", TOKEN: "c"}, "alone"),
    ],
)
def test_addresses_and_credentials(url, environment, text):
    with pytest.raises(PyrasegError, match=text) as caught:
        connect(url, environment=environment)
    assert "secret" not in str(caught.value)


def test_without_encryption_to_this_machine_or_where_allowed():
    for url in ("http://localhost:8042/dicom-web", "http://127.0.0.1/", "http://[::1]/"):
        connect(url, environment={USER: "a", PASSWORD: "b"})
    connect("http://pacs.example.org/x", environment={}, allow_http=True)


@pytest.mark.parametrize(
    ("items", "text"),
    [
        (["Modality"], "no value"),
        (["Modalty=CT"], "The nearest name is 'Modality'"),
        (["PatientID=1", "Modality=CT"], "Patient attributes are left out"),
        (["StudyDate=20260101"], "Modality=CT"),
        (["SeriesInstanceUID=1.2"], "Give the StudyInstanceUID"),
    ],
)
def test_filters(items, text):
    with pytest.raises(PyrasegError, match=text):
        parse_filters(items)


def refusal(capfd, arguments: list[str]) -> str:
    with pytest.raises(PyrasegError) as caught:
        main(arguments)
    said = capfd.readouterr()
    assert not said.out.strip()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_way_to_the_pacs(pacs, arguments, tmp_path, capfd, monkeypatch):
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    assert "not trusted" in refusal(capfd, arguments(ca_bundle=None))
    assert "not trusted" in refusal(capfd, arguments(ca_bundle=nonsense))
    assert "no CA bundle" in refusal(capfd, arguments(ca_bundle=tmp_path / "none.pem"))
    assert "not trusted" in refusal(capfd, arguments(url=pacs.url.replace("localhost", "127.0.0.1")))  # another name
    assert "No connection" in refusal(capfd, arguments(url="https://localhost:1/dicom-web"))
    assert "404" in refusal(capfd, arguments(url=pacs.url.replace("dicom-web", "nothing")))
    pacs.add(small_series(tmp_path, "one"))
    assert "that of its DICOMweb" in refusal(capfd, arguments(url=pacs.url.replace("/dicom-web", "")))
    monkeypatch.setenv(PASSWORD, "wrong")
    assert "refuses the credentials" in refusal(capfd, arguments())


def test_the_program_says_it_in_one_line(pacs, arguments):
    environment = {**os.environ, PASSWORD: "a wrong one"}
    command = [sys.executable, "-m", "bundle.pyraseg", "pacs", *arguments()]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and not done.stdout
    (line,) = [line for line in done.stderr.splitlines() if "nvImageCodec" not in line]
    assert line.startswith("pyraseg: ") and "refuses the credentials (HTTP 401)" in line
    assert "a wrong one" not in done.stderr


class Elsewhere(BaseHTTPRequestHandler):
    """Answer /moved by a redirect, /broken not at all, and the rest by a page for people, as a portal's log-in does."""

    def do_GET(self) -> None:
        if self.path.startswith("/broken"):
            return
        moved = self.path.startswith("/moved")
        self.send_response(302 if moved else 200)
        if moved:
            self.send_header("Location", "/login")
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<p>Log in")

    def log_message(self, *_: object) -> None:
        pass


def test_no_dicomweb():
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for path, text, ends in (
            ("moved", "sends elsewhere", True),
            ("portal", "does not answer as DICOMweb", False),
            ("broken", "closed the connection", False),
        ):
            client = connect(f"http://127.0.0.1:{server.server_address[1]}/{path}", environment={})
            with pytest.raises(PacsError, match=text) as caught:
                find_series(client, {"Modality": "CT"})
            assert isinstance(caught.value, Unavailable) == ends  # a round over many series
        server.shutdown()


@pytest.mark.slow
def test_a_pacs_that_goes_away_is_waited_for(arguments, tmp_path, monkeypatch, caplog):
    with ExitStack() as stack:
        (tmp_path / "orthanc").mkdir()
        own = stack.enter_context(running(tmp_path / "orthanc"))
        looks = []

        def meanwhile(_: float) -> None:
            looks.append(len(looks))
            stack.close()
            if len(looks) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(worker, "time", SimpleNamespace(sleep=meanwhile))
        with pytest.raises(SystemExit, match="Stopped"):
            main(arguments("--watch", "7", url=own.url, ca_bundle=own.ca_bundle))
    assert caplog.text.count("Looking again in 7 s") == 2
