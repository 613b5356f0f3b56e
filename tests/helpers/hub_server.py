# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face hub on the loopback interface: what its HTTP API does with repositories of models.

Repositories, commits, tags, trees and files, as https://huggingface.co/docs/hub/api and the client describe them, and
the basic transfer of Git LFS (https://github.com/git-lfs/git-lfs/tree/main/docs/api). Commits are kept as whole trees.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_ofTheTests"
GITATTRIBUTES = b"*.pt filter=lfs diff=lfs merge=lfs -text\n*.npz filter=lfs diff=lfs merge=lfs -text\n"


@dataclass
class Repository:
    """A repository: its commits, each a tree of (content, whether it is in LFS) by path, oldest first, and its tags."""

    private: bool
    commits: dict[str, dict[str, tuple[bytes, bool]]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, tree: dict[str, tuple[bytes, bool]]) -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {sorted(tree)}".encode()).hexdigest()
        self.commits[oid] = tree
        return oid

    def resolve(self, revision: str) -> str | None:
        if revision == "main":
            return list(self.commits)[-1]
        oid = self.tags.get(revision, revision)
        return oid if oid in self.commits else None

    def files(self, revision: str) -> dict[str, bytes]:
        """Return the files of a revision, without that of the hub."""
        tree = self.commits[self.resolve(revision)]
        return {path: content for path, (content, _) in tree.items() if path != ".gitattributes"}


@dataclass
class Hub:
    """What the hub has, how it behaves, and what it was asked.

    Attributes:
        lfs: whether files of the suffixes in `GITATTRIBUTES` go to LFS.
        refused: method and path, as a regular expression, of requests that are answered with 403.
        spoiled: a path whose content every commit changes, as a fault of the store would.
        asked: method and path of every request.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    lfs: bool = True
    refused: str | None = None
    spoiled: str | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def is_large(self, path: str) -> bool:
        return self.lfs and path.endswith((".pt", ".npz"))


class Refusal(Exception):
    """An answer that is an error: its status, what is told, and the code in its header."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        self.status, self.message, self.code = status, message, code


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    lock: Lock

    def handle_request(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            with self.lock:
                self.hub.asked.append(f"{self.command} {path}")
                self.answer_to(path, body)
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message} | ({"X-Error-Code": refusal.code} if refusal.code else {})
            self.answer(json.dumps({"error": refusal.message}).encode(), refusal.status, **headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def tell(self, content: Any) -> None:
        self.answer(json.dumps(content).encode(), **{"Content-Type": "application/json"})

    def answer_to(self, path: str, body: bytes) -> None:
        hub = self.hub
        writes = self.command in ("POST", "DELETE")
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if hub.refused is not None and re.fullmatch(hub.refused, f"{self.command} {path}"):
            raise Refusal(403, "you have no write permission here")
        if writes and not known:
            raise Refusal(401, "Invalid credentials in Authorization header")
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            return self.tell({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):  # stands for the store that the hub names; PUT
            if hashlib.sha256(body).hexdigest() != match[1]:
                raise Refusal(400, "the content is another")
            hub.stored[match[1]] = body
            return self.answer(b"")
        match = re.fullmatch(r"/(?:api/models/)?([\w.-]+/[\w.-]+?)(?:\.git)?(/.*)?", path)
        repository = hub.repositories.get(match[1]) if match else None
        if repository is None or (repository.private and not known):
            raise Refusal(401, "Repository not found", "RepoNotFound")
        name, rest = match[1], (match[2] or "").split("/", 3)[1:]
        what, which, *_ = [*rest, "", ""]
        if (self.command, what) == ("POST", "tag"):
            tag = json.loads(body)["tag"]
            if tag in repository.tags:
                raise Refusal(409, "Tag reference exists already")
            repository.tags[tag] = self.revision(repository, which)
            return self.answer(b"")
        if (self.command, what) == ("DELETE", "tag"):
            del repository.tags[which]
            return self.answer(b"")
        if what == "refs":
            branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.resolve("main")}
            tags = [{"name": t, "ref": f"refs/tags/{t}", "targetCommit": c} for t, c in repository.tags.items()]
            return self.tell({"branches": [branch], "converts": [], "tags": tags})
        if what == "preupload":
            return self.preupload(repository, which, json.loads(body))
        if what == "info":  # /info/lfs/objects/batch
            return self.batch(json.loads(body))
        if what == "commit":
            return self.commit(name, repository, body)
        if what in ("", "revision"):
            return self.tell({"id": name, "sha": self.revision(repository, which or "main"), "siblings": []})
        if what == "tree":
            tree = repository.commits[self.revision(repository, which)]
            return self.tell([self.entry(path, *tree[path]) for path in sorted(tree)])
        if what == "resolve":
            oid = self.revision(repository, which)
            tree = repository.commits[oid]
            if rest[2] not in tree:
                raise Refusal(404, "Entry not found", "EntryNotFound")
            entry = self.entry(rest[2], *tree[rest[2]])
            etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
            return self.answer(tree[rest[2]][0], ETag=f'"{etag}"', **{"X-Repo-Commit": oid})
        raise Refusal(404, f"nothing is at {path}")

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.hub.url}/{name}"}
        if name in self.hub.repositories:
            return self.answer(json.dumps(url).encode(), 409)
        repository = Repository(private=wanted["visibility"] == "private")
        repository.commit({".gitattributes": (GITATTRIBUTES, False)})
        self.hub.repositories[name] = repository
        self.tell(url)

    def revision(self, repository: Repository, revision: str) -> str:
        oid = repository.resolve(revision)
        if oid is None:
            raise Refusal(404, "Revision not found", "RevisionNotFound")
        return oid

    def entry(self, path: str, content: bytes, large: bool) -> dict[str, Any]:
        entry = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
        if large:
            digest = hashlib.sha256(content).hexdigest()
            entry |= {"oid": blob_id(digest.encode()), "lfs": {"oid": digest, "size": len(content), "pointerSize": 130}}
        return entry

    def preupload(self, repository: Repository, revision: str, wanted: dict[str, Any]) -> None:
        tree = repository.commits[self.revision(repository, revision)]
        files = []
        for file in wanted["files"]:
            path = file["path"]
            entry = self.entry(path, *tree[path]) if path in tree else {"oid": None}
            mode = "lfs" if self.hub.is_large(path) else "regular"
            oid = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.tell({"files": files})

    def batch(self, wanted: dict[str, Any]) -> None:
        objects = []
        for item in wanted["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}
            objects.append(item if item["oid"] in self.hub.stored else item | {"actions": upload})
        self.tell({"transfer": "basic", "objects": objects})

    def commit(self, name: str, repository: Repository, body: bytes) -> None:
        tree = dict(repository.commits[repository.resolve("main")])
        for line in body.splitlines():
            item = json.loads(line)
            path = item["value"].get("path")
            if item["key"] == "file":
                tree[path] = base64.b64decode(item["value"]["content"]), False
            elif item["key"] == "lfsFile":
                tree[path] = self.hub.stored[item["value"]["oid"]], True
            elif item["key"] == "deletedFile":
                del tree[path]
        if self.hub.spoiled in tree:
            tree[self.hub.spoiled] = b"spoiled", False
        oid = repository.commit(tree)
        self.tell({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def log_message(self, *arguments: object) -> None:
        pass


def blob_id(content: bytes) -> str:
    """Return the name of a blob in git."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serve_hub(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on a free port of 127.0.0.1, and tell it its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OfThisHub", (Handler,), {"hub": hub, "lock": Lock()}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
