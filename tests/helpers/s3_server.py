# SPDX-License-Identifier: Apache-2.0
"""A real S3 server for tests: moto on a loopback port, and a way to it on which things go wrong."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "images"
#: A key of the store, which must stand in no message.
SECRET = "a-secret-of-the-store"


@dataclass
class Store:
    """A running server with one bucket.

    Attributes:
        url: of it, without TLS.
        client: boto3's, which is not what the code under test uses.
    """

    url: str
    client: object

    def keys(self, prefix: str = "") -> dict[str, str]:
        """Return the ETags of what lies there, by keys."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", ())}

    def add(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def empty(self) -> None:
        for key in self.keys():
            self.client.delete_object(Bucket=BUCKET, Key=key)


@contextmanager
def running() -> Iterator[Store]:
    """Start a server, and stop it."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        keys = {"aws_access_key_id": "reader", "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=url, **keys)
        client.create_bucket(Bucket=BUCKET)
        yield Store(url, client)
    finally:
        server.stop()


def give_way(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Put what leads to a server into the environment."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    ways = {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    ways |= {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": SECRET}
    for name, value in ways.items():
        monkeypatch.setenv(name, value)


@dataclass
class BadWay:
    """A way to a server.

    Attributes:
        url: of its beginning.
        refuse: whether a request, by its method and path, is answered with 503 and never reaches the server.
        lose: whether the server gets a request, and the connection ends before its answer.
        hold: whether a request is kept waiting until the way is closed.
        asked: all requests.
        closed: nobody gets through any more.
    """

    url: str = ""
    refuse: Callable[[str, str], bool] = lambda method, path: False
    lose: Callable[[str, str], bool] = lambda method, path: False
    hold: Callable[[str, str], bool] = lambda method, path: False
    asked: list[tuple[str, str]] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    def count(self, method: str, ending: str) -> int:
        """Return how many requests of a method were for a path of an ending."""
        return sum(one == method and path.partition("?")[0].endswith(ending) for one, path in self.asked)


@contextmanager
def bad_way_to(url: str, *, port: int = 0) -> Iterator[BadWay]:
    """Stand between a client and a server, at a port; 0 for any."""
    way = BadWay()
    server = ThreadingHTTPServer(("127.0.0.1", port), _between(way, url.removeprefix("http://")))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    way.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield way
    finally:
        way.closed.set()
        server.shutdown()
        server.server_close()


def _between(way: BadWay, address: str) -> type[BaseHTTPRequestHandler]:
    class Between(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            way.asked.append((self.command, self.path))
            if way.hold(self.command, self.path):
                way.closed.wait()
            if way.closed.is_set():
                self.close_connection = True
                return
            if way.refuse(self.command, self.path):
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            server = http.client.HTTPConnection(address, timeout=30)
            server.request(self.command, self.path, body, dict(self.headers))
            answer = server.getresponse()
            content = answer.read()
            server.close()
            if way.lose(self.command, self.path):
                self.close_connection = True
                return
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None: ...

    return Between
