# SPDX-License-Identifier: Apache-2.0
"""Servers on loopback: S3 by moto, with something in front of it that lets a share of the requests fail."""

import http.client
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import boto3
from botocore.exceptions import EndpointConnectionError

BUCKET = "archive"


class Unreliable(BaseHTTPRequestHandler):
    """Pass requests on to a server; of a share, half are refused, and half are done, but their answers are lost."""

    protocol_version = "HTTP/1.1"
    port = 0
    share = 0.0
    dice = random.Random(0)
    counts: ClassVar[Counter[str]] = Counter()

    def pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.counts["requests"] += 1
        chance = self.dice.random()
        if chance < self.share / 2:
            self.counts["refused"] += 1
            self.answer(503, b"", {})
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers))
        found = connection.getresponse()
        content, headers = found.read(), dict(found.getheaders())
        connection.close()
        if chance < self.share:
            self.counts["answers lost"] += 1
            self.answer(503, b"", {})
            return
        self.answer(found.status, content, headers)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = pass_on

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        kept = {
            name: value for name, value in headers.items() if name.lower() not in ("connection", "transfer-encoding")
        }
        if self.command != "HEAD":
            kept["Content-Length"] = str(len(content))
        kept.setdefault("Content-Length", "0")
        for name, value in kept.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def s3(share: float) -> Iterator[tuple[dict[str, str], "boto3.client", Counter[str]]]:
    """Yield the environment of a store, a client that sees it without failures, and what was counted.

    Args:
        share: of the requests that fail.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    credentials = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": "us-east-1"}
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="nobody",
        aws_secret_access_key="none",
    )
    for _ in range(100):
        with suppress(EndpointConnectionError):
            client.create_bucket(Bucket=BUCKET)
            break
        time.sleep(0.2)
    Unreliable.port, Unreliable.share, Unreliable.counts = port, share, Counter()
    front = ThreadingHTTPServer(("127.0.0.1", 0), Unreliable)
    threading.Thread(target=front.serve_forever, daemon=True).start()
    own = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{front.server_port}", "AWS_ALLOW_HTTP": "true"}
    try:
        yield {**os.environ, **credentials, **own}, client, Unreliable.counts
    finally:
        front.shutdown()
        server.terminate()
        server.wait()
