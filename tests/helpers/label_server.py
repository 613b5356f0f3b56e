# SPDX-License-Identifier: Apache-2.0
"""A real MONAI Label server on loopback, what its clients ask, and a bundle of another make to serve beside ours."""

import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.pyraseg.packaging.archive import read_archive, unpack
from bundle.pyraseg_tools.monai_label.app_folder import put_bundles
from tests.helpers import orthanc
from tests.helpers.commands import ROOT, monai_bundle
from tests.helpers.orthanc import Orthanc

PYTHON = ROOT / ".venv-label" / "bin" / "python"
#: A bundle of another make.
FOREIGN = "threshold_segmentation"
#: For the tests that start a server.
needs_server = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not PYTHON.exists(), reason="there is no .venv-label with MONAI Label: make label"),
]
THRESHOLD = """
import torch


class Threshold(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.cat([self.level - x, x - self.level], 1)
"""


class Server:
    """What a client of MONAI Label asks for."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.context = ssl._create_unverified_context()  # its certificate is of a test

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json", **headers: str
    ) -> bytes:
        headers = {"Content-Type": kind, **self.headers, **headers}
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=300, context=self.context) as answer:
            return answer.read()

    def info(self) -> dict[str, Any]:
        return json.loads(self.ask("GET", "/info/"))

    def infer(self, model: str, image: str, /, **params: Any) -> bytes:
        body, kind = form({"params": json.dumps(params).encode()})
        return self.ask("POST", f"/infer/{model}?image={image}&output=image", body, kind)

    def put_label(self, image: str, path: Path, /, tag: str = "final", **params: Any) -> str:
        body, kind = form({"params": json.dumps(params).encode()}, label=path)
        return json.loads(self.ask("PUT", f"/datastore/label?image={image}&tag={tag}", body, kind))["label"]

    def run(self, task: str, post: str, **params: Any) -> str:
        """Start a task, wait for its end and return what it told."""
        self.ask("POST", post, json.dumps(params).encode())
        while True:
            state = json.loads(self.ask("GET", task))
            told = "\n".join(state.get("details", []))
            if state["status"] in ("DONE", "ERROR"):
                assert state["status"] == "DONE", told
                return told
            time.sleep(1)


def refusal(ask: Callable[[], object]) -> int:
    """Return the HTTP status by which a request is refused."""
    with pytest.raises(urllib.error.HTTPError) as error:
        ask()
    assert json.loads(error.value.read())["detail"]
    return error.value.code


def form(fields: dict[str, bytes], **files: Path) -> tuple[bytes, str]:
    """Return a body of multipart/form-data and its type."""
    lines = []
    for name, value in fields.items():
        lines += [b"--part", f'Content-Disposition: form-data; name="{name}"'.encode(), b"", value]
    for name, path in files.items():
        head = f'Content-Disposition: form-data; name="{name}"; filename="{path.name}"'.encode()
        lines += [b"--part", head, b"Content-Type: application/octet-stream", b"", path.read_bytes()]
    return b"\r\n".join([*lines, b"--part--", b""]), "multipart/form-data; boundary=part"


@contextmanager
def served(
    packages: Sequence[Path],
    studies: str | Path,
    app: Path,
    *,
    samples: int,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    token: str | None = None,
) -> Iterator[Server]:
    """Serve a package, and bundles beside it, with trainings of that many samples an epoch; end what was started."""
    folder, *_ = put_bundles(packages, app)
    config = folder / "configs" / "train.json"
    train = json.loads(config.read_text())
    config.write_text(json.dumps({**train, "samples_per_epoch": samples, "num_workers": 0}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [PYTHON, ROOT / "scripts" / "serve_label.py", *packages, "--studies", studies, *options]
    log = (app / "log.txt").open("w")
    process = subprocess.Popen(
        [*map(str, command), "--app-dir", str(app), "--port", str(port)],
        stdout=log, stderr=subprocess.STDOUT, cwd=app, env={**os.environ, "PYTHONPATH": "", **(environment or {})},
    )  # fmt: skip
    server = Server(f"{'https' if '--certificate' in options else 'http'}://127.0.0.1:{port}", token)
    try:
        while True:
            assert process.poll() is None, (app / "log.txt").read_text()
            try:
                server.info()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(1)
        yield server
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def own_inference(package: Path, image: Path, folder: Path) -> Path:
    """Return the folder of what the bundle itself makes of an image, or of a series."""
    unpack(read_archive(package)[1], folder / "bundle")
    config = str(folder / "bundle" / "configs" / "inference.json")
    options = ["--dataset_dir", str(image), "--output_dir", str(folder / "out"), "--outputs", "['labels']"]
    done = monai_bundle("run", "inferring", "--config_file", config, *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "out"


def write_foreign(folder: Path, *, trainable: bool = False) -> Path:
    """Write a bundle of another make, whose code is a package `scripts`: what is above 0 is bright.

    One that is trainable declares options for clients, too.
    """
    bundle = folder / FOREIGN
    for name in ("configs", "models", "scripts"):
        (bundle / name).mkdir(parents=True)
    (bundle / "scripts" / "__init__.py").touch()
    (bundle / "scripts" / "network.py").write_text(THRESHOLD)
    torch.save({"level": torch.zeros(1)}, bundle / "models" / "model.pt")
    load = {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True}
    steps = [
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {"_target_": "CastToTyped", "keys": "pred", "dtype": "$torch.uint8"},
    ]
    inference = {
        "bundle_root": ".",
        "device": "cpu",
        "network_def": {"_target_": "scripts.network.Threshold"},
        "preprocessing": {"_target_": "Compose", "transforms": [load]},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": steps},
    }
    formats = {
        "inputs": {"image": {"spatial_shape": ["n"] * 3}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "bright"}}},
    }
    metadata = {"version": "1.0.0", "description": "A threshold", "network_data_format": formats}
    configs = {"inference": inference, "metadata": metadata}
    if trainable:
        inference["displayable_configs"] = options = {"level": 0.5, "mode": ["mean", "max"], "note": "plain"}
        configs["train"] = {
            "bundle_root": ".",
            "device": "cpu",
            "displayable_configs": options,
            "train": {"trainer": {"max_epochs": 1}, "dataset": {"data": []}, "handlers": []},
            "validate": {"dataset": {"data": []}},
            "run": ["$print('trained on', @device, 'with', @displayable_configs)"],
        }
    for name, content in configs.items():
        (bundle / "configs" / f"{name}.json").write_text(json.dumps(content))
    return bundle


def on_pacs(pacs: Orthanc, modality: str) -> dict[str, object]:
    """Return the arguments of `served` for a PACS."""
    options = ["--filter", f"Modality={modality}", "--ca-bundle", str(pacs.ca_bundle)]
    environment = {"PYRASEG_PACS_USER": orthanc.USER, "PYRASEG_PACS_PASSWORD": orthanc.PASSWORD}
    return {"studies": pacs.url, "options": options, "environment": environment, "samples": 32}
