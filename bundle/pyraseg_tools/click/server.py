# SPDX-License-Identifier: Apache-2.0
"""Serve the page for clicks, to this machine alone and to whoever knows the token."""

import json
import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from bundle.pyraseg.core import PyrasegError, mendable
from bundle.pyraseg.figures import color_of
from bundle.pyraseg_tools.click.labeling import Labeling, Task
from bundle.pyraseg_tools.click.showing import picture_of
from bundle.pyraseg_tools.monai_label import holds_token, is_from_elsewhere

#: Where the server listens: no other machine reaches it.
HOST = "127.0.0.1"
#: The files of the page, by path, with their types; nothing else is read from a disk for a request.
PAGES = {
    "/": ("click.html", "text/html; charset=utf-8"),
    "/click.css": ("click.css", "text/css; charset=utf-8"),
    "/click.js": ("click.js", "text/javascript; charset=utf-8"),
}
#: Bytes of a request that are read at most.
LONGEST = 10_000
#: What the page may load: its own files, and pictures that it was sent.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Server(ThreadingHTTPServer):
    """Serve the page, and what it asks for, on 127.0.0.1.

    Args:
        labeling: the set of images.
        port: to listen at; 0: one that is free.

    Attributes:
        token: without which nothing but the page's own files is answered.
    """

    daemon_threads = True

    def __init__(self, labeling: Labeling, *, port: int = 0) -> None:
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            raise PyrasegError(
                f"The port {port} cannot be listened at: {error.strerror}. Give another --port."
            ) from error
        self.labeling = labeling
        self.token = secrets.token_urlsafe(24)
        self.lock = Lock()  # one thing at a time is done to the set
        folder = files("bundle.pyraseg_tools.click") / "pages"
        self.pages = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in PAGES.items()}

    @property
    def names(self) -> frozenset[str]:
        """Return what a browser may call the server in the header Host."""
        return frozenset(f"{name}:{self.server_port}" for name in (HOST, "localhost"))

    @property
    def address(self) -> str:
        """Return the address to open. A browser keeps what stands behind # to itself."""
        return f"http://{HOST}:{self.server_port}/#{self.token}"


class Handler(BaseHTTPRequestHandler):
    """Answer one request."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Pyraseg", ""
    timeout = 60

    @property
    def owner(self) -> Server:
        """Return the server that was asked."""
        assert isinstance(self.server, Server)
        return self.server

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if not self._is_from_here():
            return
        if page := self.owner.pages.get(address.path):
            self._send(HTTPStatus.OK, *page)
            return
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        self._answer(GETS.get(address.path), query)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LONGEST or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            self._refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too long, or does not say how long it is."
            )
            return
        body = self.rfile.read(int(length))
        if not self._is_from_here():
            return
        if self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The request is no JSON.")
            return
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            self._refuse(HTTPStatus.BAD_REQUEST, "The request is no JSON object.")
            return
        self._answer(POSTS.get(urlsplit(self.path).path), content)

    def _is_from_here(self) -> bool:
        """Refuse what does not name this server, or comes from a page of another one; return whether all is well."""
        host = self.headers.get("Host", "").lower()
        if host in self.owner.names and not is_from_elsewhere(self.headers.get("Origin"), host):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "Only the page of this server may ask.")
        return False

    def _answer(self, action: "Callable[[Labeling, Mapping[str, Any]], tuple[bytes, str]] | None", said: Any) -> None:
        if not holds_token(self.headers.get("Authorization"), self.owner.token):
            self._refuse(HTTPStatus.UNAUTHORIZED, "Open the address that pyraseg click has printed, with its token.")
        elif action is None:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")
        else:
            try:
                with self.owner.lock:
                    content, kind = action(self.owner.labeling, said)
            except Exception as error:
                if (cause := mendable(error)) is not None:
                    self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(cause))
                elif isinstance(error, KeyError | TypeError | ValueError):
                    self._refuse(HTTPStatus.BAD_REQUEST, "The request lacks something, or holds another kind of value.")
                else:
                    self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: see the terminal.")
                    raise
            else:
                self._send(HTTPStatus.OK, content, kind)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._send(status, *_json({"error": reason}))

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the terminal is for people."""


def _json(content: Any) -> tuple[bytes, str]:
    return json.dumps(content).encode(), "application/json"


def state(labeling: Labeling, said: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return what the page is about: the images, and the structures with their colors."""
    names = labeling.model.structures.names
    return _json(
        {
            "images": [_told(task) for task in labeling.tasks],
            "structures": [
                {"name": name, "color": color_of(np.array(number)).tolist()} for number, name in enumerate(names)
            ],
            "values": [int(value) for value in labeling.model.structures.uppermost],
            "model": "{} {}".format(*labeling.model.algorithm),
            "first": labeling.first,
        }
    )


def _told(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "done": task.is_done,
        "seconds": round(task.seconds, 1),
        "uncertainty": round(task.uncertainty, 4),
    }


def open_(labeling: Labeling, said: Mapping[str, Any]) -> tuple[bytes, str]:
    """Open an image, and return how large it is and where it has most of what was found."""
    session = labeling.open(_whole(said["image"]))
    slices, rows, columns = session.shape
    found = [int((session.labels(number) > 0).sum()) for number in range(slices)]
    start = found.index(max(found)) if any(found) else slices // 2
    return _json({"slices": slices, "rows": rows, "columns": columns, "start": start} | _now(labeling))


def image(labeling: Labeling, said: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return a slice of the image that is open as a picture."""
    return picture_of(labeling.opened, _slice(labeling, said["slice"]))


def labels(labeling: Labeling, said: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return the label value of each pixel of a slice, row by row, a byte each."""
    return labeling.opened.labels(_slice(labeling, said["slice"])).tobytes(), "application/octet-stream"


def refine(labeling: Labeling, said: Mapping[str, Any]) -> tuple[bytes, str]:
    """Correct the image that is open: by a click {column, row, inside}, or a box {box: [column, row, column, row]}."""
    names = labeling.model.structures.names
    structure = _whole(said["structure"])
    if not 1 <= structure < len(names):
        raise PyrasegError(f"There is no structure {structure}.")
    where = {"structure": structure, "number": _slice(labeling, said["slice"]), "spread": bool(said["spread"])}
    if "box" in said:
        corners = [float(part) for part in said["box"]]
        if len(corners) != 4:
            raise ValueError("a box has four numbers")
        changed = labeling.refine(box=corners, **where)
    else:
        click = float(said["column"]), float(said["row"]), bool(said["inside"])
        changed = labeling.refine(clicks=[click], **where)
    return _json({"changed": changed} | _now(labeling))


def undo(labeling: Labeling, said: Mapping[str, Any]) -> tuple[bytes, str]:
    """Take the last correction back."""
    return _json({"changed": labeling.undo()} | _now(labeling))


def save(labeling: Labeling, said: Mapping[str, Any]) -> tuple[bytes, str]:
    """Write the label of the image that is open."""
    return _json({"file": labeling.save().name} | _now(labeling))


def _now(labeling: Labeling) -> dict[str, Any]:
    """Return how far the image that is open is."""
    session = labeling.opened
    own = {"place": labeling.place, "clicks": session.clicks, "boxes": session.boxes, "saved": labeling.is_saved}
    return own | {"image": _told(labeling.task)}


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and value != int(value)):
        raise ValueError("no whole number")
    return int(value)


def _slice(labeling: Labeling, value: Any) -> int:
    number = _whole(value)
    if not 0 <= number < labeling.opened.shape[0]:
        raise PyrasegError(f"There is no slice {number + 1}.")
    return number


GETS = {"/api/state": state, "/api/image": image, "/api/labels": labels}
POSTS = {"/api/open": open_, "/api/refine": refine, "/api/undo": undo, "/api/save": save}
