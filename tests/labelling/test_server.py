# SPDX-License-Identifier: Apache-2.0
"""A real MONAI Label server on loopback: inference, labels, retraining, scoring, for photographs and for volumes."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from bundle.pyraseg.data.phantom.cases import phantom_case
from bundle.pyraseg.labelling.app_folder import put_bundles
from bundle.pyraseg.labelling.retraining import fixed_validation
from bundle.pyraseg.packaging.archive import read_archive, unpack
from bundle.pyraseg.packaging.pack import pack
from tests.packaging.test_elsewhere import draw
from tests.workflows.commands import ROOT, monai_bundle

PYTHON = ROOT / ".venv-label" / "bin" / "python"
THRESHOLD = """
import torch


class Threshold(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.cat([self.level - x, x - self.level], 1)
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not PYTHON.exists(), reason="there is no .venv-label with MONAI Label: make label"),
]


class Server:
    """What a client of MONAI Label asks for."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        request = urllib.request.Request(self.url + path, data=body, method=method, headers={"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.read()

    def info(self) -> dict[str, Any]:
        return json.loads(self.ask("GET", "/info/"))

    def infer(self, model: str, image: str, **params: Any) -> bytes:
        body, kind = form({"params": json.dumps(params).encode()})
        return self.ask("POST", f"/infer/{model}?image={image}&output=image", body, kind)

    def put_label(self, image: str, path: Path) -> None:
        body, kind = form({"params": b"{}"}, label=path)
        self.ask("PUT", f"/datastore/label?image={image}&tag=final", body, kind)

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
def served(packages: list[Path], studies: Path, app: Path, *, samples: int) -> Iterator[Server]:
    """Serve a package, and bundles beside it, with trainings of that many samples an epoch; end what was started."""
    folder, *_ = put_bundles(packages, app)
    config = folder / "configs" / "train.json"
    train = json.loads(config.read_text())
    config.write_text(json.dumps({**train, "samples_per_epoch": samples, "num_workers": 0}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [PYTHON, ROOT / "scripts" / "serve_label.py", *packages, "--studies", studies]
    log = (app / "log.txt").open("w")
    process = subprocess.Popen(
        [*map(str, command), "--app-dir", str(app), "--port", str(port)],
        stdout=log, stderr=subprocess.STDOUT, cwd=app, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    server = Server(f"http://127.0.0.1:{port}")
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
    """Return the folder of what the bundle itself makes of an image."""
    unpack(read_archive(package)[1], folder / "bundle")
    (folder / "in").mkdir()
    (folder / "in" / image.name).symlink_to(image)
    config = str(folder / "bundle" / "configs" / "inference.json")
    options = ["--dataset_dir", str(folder / "in"), "--output_dir", str(folder / "out")]
    done = monai_bundle("run", "inferring", "--config_file", config, *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "out"


def test_photographs_are_labelled_and_a_worse_retraining_is_not_served(package, tmp_path):
    name, studies, app = "pyraseg_dermoscopy", tmp_path / "study" / "images", tmp_path / "app"
    for seed in range(6):
        draw(tmp_path / "study", seed, (120, 90))
    masks = tmp_path / "study" / "masks"
    validation = fixed_validation(tmp_path / "chosen.json", [f"c{seed}.jpg" for seed in range(5)], 0.4)
    with served([package.zip], studies, app, samples=64) as server:
        assert server.info()["models"][name]["labels"] == {"lesion": 1}
        (tmp_path / "c0.png").write_bytes(server.infer(name, "c0"))
        own = own_inference(package.zip, studies / "c0.jpg", tmp_path) / "c0.png"
        labels = np.asarray(Image.open(tmp_path / "c0.png"))
        assert labels.any()
        np.testing.assert_array_equal(labels, np.asarray(Image.open(own)))

        for seed in range(5):  # true masks to compare on, the opposite to train on
            mask = masks / f"c{seed}_segmentation.png"
            if f"c{seed}.jpg" not in validation:
                Image.fromarray(255 - np.asarray(Image.open(mask))).save(mask)
            server.put_label(f"c{seed}", mask)
        model = app / "model" / name / "models" / "model.pt"
        before = model.read_bytes()
        told = server.run("/train/", f"/train/{name}", max_epochs=1, val_split=0.4)
        assert "the model stays as it is" in told
        assert model.read_bytes() == before
        assert set(json.loads((app / "model" / name / "validation.json").read_text())) == validation

        server.run("/scoring/", f"/scoring/{name}", simulation_size=2)
        sample = json.loads(server.ask("POST", "/activelearning/epistemic"))
        assert sample["id"] == "c5" and sample["epistemic_entropy"] > 0
        server.run("/batch/infer", f"/batch/infer/{name}?images=unlabeled")
        assert (studies / "labels" / "original" / "c5.png").is_file()
        with pytest.raises(urllib.error.HTTPError):
            server.infer(name, "c0", model_filename="../../elsewhere.pt")
    assert "c0.jpg" not in (app / "log.txt").read_text()  # names of files may be names of patients


def write_volume(folder: Path, index: int) -> tuple[Path, Path]:
    """Write a patient of the phantom study as NIfTI; return the paths of the image and of its label."""
    case = phantom_case(2024, index, size=64)
    affine = np.eye(4)
    columns = (case.row_cosine * case.pixel_spacing[1], case.column_cosine * case.pixel_spacing[0], case.slice_step)
    affine[:3] = np.diag([-1, -1, 1]) @ np.column_stack([*columns, case.positions[0]])
    paths = folder / "images" / f"v{index}.nii.gz", folder / "labels" / f"v{index}.nii.gz"
    for path, array in zip(paths, (case.hu, case.labels), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), affine), path)
    return paths


def write_foreign(folder: Path) -> Path:
    """Write a bundle of another make, whose code is a package `scripts`: what is above 0 is bright."""
    bundle = folder / "threshold_segmentation"
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
    for name, content in (("inference", inference), ("metadata", metadata)):
        (bundle / "configs" / f"{name}.json").write_text(json.dumps(content))
    return bundle


def test_volumes_are_labelled_and_a_better_retraining_is_served(tmp_path):
    name, app = "pyraseg_phantom", tmp_path / "app"
    torch.manual_seed(0)
    parser = ConfigParser(ConfigParser.load_config_file(ROOT / "configs" / "inference.json"))
    parser["pretrained"] = True  # the encoder alone
    untrained = parser.get_parsed_content("network_def")
    torch.save(untrained.state_dict(), tmp_path / "untrained.pt")
    package = pack(ROOT, "phantom", tmp_path, model=tmp_path / "untrained.pt")
    cases = [write_volume(tmp_path, index) for index in range(3)]
    with served([package, write_foreign(tmp_path)], tmp_path / "images", app, samples=256) as server:
        (tmp_path / "v0.nii.gz").write_bytes(server.infer(name, "v0"))
        result, own = (
            nibabel.load(path)
            for path in (tmp_path / "v0.nii.gz", own_inference(package, cases[0][0], tmp_path) / "v0.nii.gz")
        )
        np.testing.assert_array_equal(result.dataobj, own.dataobj)
        np.testing.assert_allclose(result.affine, own.affine, atol=1e-4)

        bright = tmp_path / "bright.nii.gz"
        bright.write_bytes(server.infer("threshold_segmentation", "v0"))
        np.testing.assert_array_equal(nibabel.load(bright).dataobj, np.asarray(nibabel.load(cases[0][0]).dataobj) > 0)

        for image, label in cases[:2]:
            server.put_label(image.name.removesuffix(".nii.gz"), label)
        told = server.run("/train/", f"/train/{name}", max_epochs=4, val_split=0.5)
        assert "it is served now" in told
        served_now, before = server.info()["models"][name]["config"]["model_filename"]
        assert served_now == "model.pt" and before.startswith("replaced/model-")
        again = tmp_path / "again.nii.gz"
        again.write_bytes(server.infer(name, "v0", model_filename=before))
        np.testing.assert_array_equal(nibabel.load(again).dataobj, own.dataobj)
        again.write_bytes(server.infer(name, "v0"))
        assert (np.asarray(nibabel.load(again).dataobj) != np.asarray(own.dataobj)).any()

        server.run("/scoring/", f"/scoring/{name}", simulation_size=2)
        assert json.loads(server.ask("POST", "/activelearning/epistemic"))["id"] == "v2"
    assert "v0.nii.gz" not in (app / "log.txt").read_text()
