# SPDX-License-Identifier: Apache-2.0
"""The server of the page answers its own page, and nobody else."""

import http.client
import json
from typing import Any

import pytest

from tests.tools.click.conftest import photo


@pytest.fixture
def ask(serve, photographs, tmp_path):
    photo(tmp_path / "set" / "images" / "one.png", sure=1)
    server = serve(photographs, tmp_path / "set" / "images")

    def asked(method: str, path: str, body: Any = None, **headers: str | None) -> tuple[int, bytes, dict[str, str]]:
        own: dict[str, str | None] = {
            "Host": f"127.0.0.1:{server.server_port}",
            "Authorization": f"Bearer {server.token}",
            "Content-Type": "application/json" if method == "POST" else None,
        }
        own |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        connection.putrequest(method, path, skip_host=True)
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if method == "POST" else b""
        if method == "POST" and "Content-Length" not in own:
            own["Content-Length"] = str(len(content))
        for name, value in own.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(content)
        answer = connection.getresponse()
        found = answer.status, answer.read(), dict(answer.getheaders())
        connection.close()
        return found

    asked.server = server
    return asked


def test_the_page_is_there_without_a_token_and_nothing_else_is(ask):
    for path, kind in [("/", "text/html"), ("/click.js", "text/javascript"), ("/click.css", "text/css")]:
        status, content, headers = ask("GET", path, Authorization=None)
        assert status == 200 and headers["Content-Type"].startswith(kind) and b"SPDX" in content
        assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"
    for path in (
        "/api/state",
        "/api/image?slice=0",
        "/click.html",
        "/../server.py",
        "/%2e%2e/server.py",
        "//etc/passwd",
    ):
        assert ask("GET", path, Authorization=None)[0] == 401, path
        assert ask("GET", path, Authorization="Bearer wrong")[0] == 401
    for path in ("/click.html", "/../server.py", "/..%2fserver.py", "/pages/click.html", "/etc/passwd", "/api/"):
        assert ask("GET", path)[0] == 404
    assert ask("POST", "/api/state", {})[0] == 404 and ask("GET", "/api/save")[0] == 404
    assert ask("GET", "/api/state")[0] == 200


def test_other_hosts_and_pages_are_refused(ask):
    port = ask.server.server_port
    assert ask("GET", "/api/state", Host=f"localhost:{port}")[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", None, ""):
        assert ask("GET", "/", Host=host)[0] == 403, host
        assert ask("GET", "/api/state", Host=host)[0] == 403
    for origin in ("http://evil.example", "null", f"http://localhost:{port}"):
        assert ask("POST", "/api/open", {"image": 0}, Origin=origin)[0] == 403
    assert ask("POST", "/api/open", {"image": 0}, Origin=f"http://127.0.0.1:{port}")[0] == 200
    assert ask.server.server_address[0] == "127.0.0.1" and len(ask.server.token) >= 32


def test_what_is_no_request_of_the_page_is_refused_in_words(ask):
    assert ask("POST", "/api/undo", {})[0] == 422  # no image is open
    assert ask("GET", "/api/labels?slice=0")[0] == 422
    assert ask("POST", "/api/open", {"image": 0})[0] == 200
    good = {"slice": 0, "structure": 1, "spread": True, "column": 3, "row": 4, "inside": True}
    assert ask("POST", "/api/refine", good)[0] == 200
    for path, body, status in [
        ("/api/open", {"image": 7}, 422),
        ("/api/open", {"image": "x"}, 400),
        ("/api/open", {"image": True}, 400),
        ("/api/open", {}, 400),
        ("/api/open", [0], 400),
        ("/api/open", b"{", 400),
        ("/api/refine", good | {"column": 160}, 422),
        ("/api/refine", good | {"column": "far"}, 400),
        ("/api/refine", good | {"slice": 1}, 422),
        ("/api/refine", good | {"slice": -1}, 422),
        ("/api/refine", good | {"structure": 2}, 422),
        ("/api/refine", good | {"box": [1, 2, 3]}, 400),
        ("/api/refine", good | {"box": ["x", 2, 3, 4]}, 400),
        ("/api/refine", good | {"column": float("nan")}, 422),
        ("/api/refine", {"x": "y" * 20_000}, 413),
    ]:
        found, content, _ = ask("POST", path, body)
        assert (found, bool(json.loads(content)["error"])) == (status, True), (path, body)
    assert ask("POST", "/api/undo", b"", Content_Length=None)[0] == 413
    assert ask("POST", "/api/undo", {}, Content_Type="text/plain")[0] == 415
    assert json.loads(ask("POST", "/api/undo", {})[1])["changed"] == [0]
