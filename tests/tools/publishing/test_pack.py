# SPDX-License-Identifier: Apache-2.0
"""What a package holds, that it repeats, and when there is none."""

import hashlib
import io
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from bundle.pyraseg.commands.models import shipped_models
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.core.settings import ModelSettings
from bundle.pyraseg.packaging.verification import verify
from bundle.pyraseg.training.checkpoints import read_model, save_model
from bundle.pyraseg_tools.commands.package import main
from bundle.pyraseg_tools.publishing.packing import check_tracked, pack
from bundle.pyraseg_tools.publishing.task import Task
from tests.helpers.commands import ROOT
from tests.helpers.packages import VERSION

MANY = ("bundle", "configs", "docs")
SINGLE = ("LICENSE", "pyproject.toml", "constraints.txt", "models/dermoscopy.pt")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the repository in another place, with what a user's may hold beside it."""
    root = tmp_path / "elsewhere"
    for name in MANY:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "models" / "replaced").mkdir(parents=True)
    for name in SINGLE:
        shutil.copy(ROOT / name, root / name)
    for name in (
        "data/dermoscopy/images/Miller_Anna.jpg", "runs/cache/entry.npy", "models/replaced/model-1.pt", "models/a.pt",
        "bundle/pyraseg/__pycache__/errors.cpython-311.pyc", "bundle/pyraseg/.errors.py.swp", "docs/notes.txt",
    ):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"Miller^Anna")
    return root


@pytest.mark.slow
def test_the_same_bytes_from_another_place(package, copy, tmp_path):
    again = pack(copy, "dermoscopy", tmp_path / "out", key=package.private)
    assert again.name == f"pyraseg_dermoscopy_v{VERSION}.zip" == package.zip.name
    assert again.read_bytes() == package.zip.read_bytes()
    assert list(again.parent.iterdir()) == [again]


@pytest.mark.slow
@pytest.mark.parametrize("model", shipped_models(), ids=lambda model: model.task)
def test_every_included_model_is_packaged_and_verified(model, tmp_path):
    found = verify(pack(ROOT, model.task, tmp_path, model=model.path), unsigned=True)
    kind = json.loads(found.files["configs/inference.json"])["image_kind"]
    if kind != "volume":
        with Image.open(io.BytesIO(found.files["golden/input.png"])) as image:
            assert image.mode == {"photograph": "RGB", "projection": "L"}[kind]


def test_it_holds_what_it_needs_and_no_more(package):
    tracked = subprocess.run(
        ["git", "ls-files", "bundle/pyraseg"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    sources = set(tracked.stdout.split())
    overlays = {f"configs/{path.name}" for path in Task(ROOT, "dermoscopy").other_overlays()}
    assert set(package.files) - sources - overlays == {
        "LICENSE", "README.md", "SHA256SUMS", "SHA256SUMS.sig", "bom.cdx.json", "pyproject.toml", "constraints.txt",
        "configs/train.json", "configs/evaluate.json", "configs/inference.json", "configs/metadata.json",
        "configs/logging.conf", "docs/README.md", "docs/data_license.txt", "docs/changelog.md", "models/model.pt",
        "golden/input.png", "golden/label.png", "golden/expected.npz",
    }  # fmt: skip
    assert sources | overlays <= set(package.files)
    plain = torch.load(io.BytesIO(package.files["models/model.pt"]), weights_only=True)
    stored = read_model(ROOT / "models" / "dermoscopy.pt")[0]
    assert plain.keys() == stored.keys() and all(torch.equal(plain[name], stored[name]) for name in stored)


def test_nothing_tells_where_it_was_made(package):
    for name, content in package.files.items():
        assert str(ROOT).encode() not in content and str(Path.home()).encode() + b"/" not in content, name


def test_links_and_configs_that_its_pages_name_are_in_it(package):
    for page, folder in (("README.md", ""), ("docs/README.md", "docs/"), ("docs/changelog.md", "docs/")):
        text = package.files[page].decode()
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert "://" in target or folder + target in package.files
        for config in re.findall(r"configs/\w+\.json", text):
            assert config in package.files


def test_sums_are_those_of_sha256sum(package, tmp_path):
    with zipfile.ZipFile(package.zip) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "pyraseg_dermoscopy"
    check = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, text=True
    )
    assert check.returncode == 0 and check.stdout.count(": OK") == len(package.files) - 2


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_signature_is_one_to_openssl(package, tmp_path):
    for name in ("SHA256SUMS", "SHA256SUMS.sig"):
        (tmp_path / name).write_bytes(package.files[name])
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(package.public), "-rawin"]
    check = subprocess.run(
        [*command, "-in", "SHA256SUMS", "-sigfile", "SHA256SUMS.sig"], cwd=tmp_path, capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_the_changes_of_each_version(package):
    changelog = json.loads(package.files["configs/metadata.json"])["changelog"]
    page = package.files["docs/changelog.md"].decode()
    assert re.findall("^## (.+)$", page, re.MULTILINE) == list(changelog) and VERSION in changelog
    assert all(text in page for text in changelog.values())


# --- when there is none ---


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("stray", ["bundle/pyraseg/scratch.py", "configs/mine.json"])
def test_files_that_git_does_not_track(stray, copy, tmp_path):
    for command in (["git", "init", "-q"], ["git", "add", "bundle", "configs", *SINGLE[:3]]):
        subprocess.run(command, cwd=copy, check=True)
    (copy / stray).write_text("{}")
    with pytest.raises(PyrasegError, match=f"git does not track {stray}, which would be packaged. Add what belongs"):
        pack(copy, "dermoscopy", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    subprocess.run(["git", "add", stray], cwd=copy, check=True)
    check_tracked(copy, [copy / stray, copy / "LICENSE"])


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_repository_that_git_cannot_read(copy):
    (copy / ".git").write_text("gitdir: nowhere")
    with pytest.raises(PyrasegError, match="git cannot list the files that it tracks"):
        check_tracked(copy, [])


def test_weights_that_the_metadata_do_not_describe(copy, tmp_path):
    weights = torch.load(copy / "models" / "dermoscopy.pt", weights_only=True)
    torch.save(weights | {"more": torch.zeros(1)}, copy / "models" / "dermoscopy.pt")
    described = json.loads((copy / "configs" / "dermoscopy_metadata.json").read_text(encoding="utf-8"))["weights"]
    digest = described["models/dermoscopy.pt"]
    with pytest.raises(PyrasegError, match=rf"describe other weights, {digest}\. Measure these weights"):
        pack(copy, "dermoscopy", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("task", "lost", "said"),
    [
        ("spleen", None, r"no trained model at .*spleen\.pt\. Train the task first"),
        ("dermoscopy", "docs/dermoscopy_card.md", r"dermoscopy_card\.md, which says the model card"),
        ("dermoscopy", "docs/data_licenses/dermoscopy.txt", r"dermoscopy\.txt, which says what the data"),
        ("dermoscopy", "configs/dermoscopy_inference.json", r"no config .*dermoscopy_inference\.json"),
    ],
)
def test_a_task_that_lacks_something(copy, tmp_path, task, lost, said):
    if lost:
        (copy / lost).unlink()
    with pytest.raises(PyrasegError, match=said):
        pack(copy, task, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "said"), [(b"no weights", "is not a file of weights"), (None, "holds more than weights")]
)
def test_a_model_that_is_none(tmp_path, content, said):
    model = tmp_path / "model.pt"
    if content is None:
        torch.save({"network": {"weight": torch.zeros(1)}, "epoch": 3}, model)
    else:
        model.write_bytes(content)
    with pytest.raises(PyrasegError, match=said):
        pack(ROOT, "dermoscopy", tmp_path / "out", model=model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_packed(tmp_path, value):
    weights, _ = read_model(ROOT / "models" / "dermoscopy.pt")
    weights["head.classifier.1.bias"][0] = value
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(PyrasegError, match=r"model\.pt: 1 weights are NaN or infinite"):
        pack(ROOT, "dermoscopy", tmp_path / "out", model=tmp_path / "model.pt")
    assert not (tmp_path / "out").exists()


def test_weights_of_other_settings_are_not_packed(tmp_path):
    weights, trained = read_model(ROOT / "models" / "dermoscopy.pt")
    other = ModelSettings({**trained, "class_names": ["lesion", "background"]}, {})
    save_model(weights, tmp_path / "model.pt", settings=other)
    with pytest.raises(PyrasegError, match=r'class_names: \["lesion", "background"\] in its training'):
        pack(ROOT, "dermoscopy", tmp_path / "out", model=tmp_path / "model.pt")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_weights_of_another_network_are_found_before_anything_is_written(copy, tmp_path):
    metadata = json.loads((copy / "configs" / "dermoscopy_metadata.json").read_text())
    (copy / "configs" / "dermoscopy_metadata.json").write_text(json.dumps(metadata | {"weights": {}}))
    torch.save({"encoder.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(
        PyrasegError, match=r"elsewhere: the weights are not those of the network of .* Nothing was written"
    ):
        pack(copy, "dermoscopy", tmp_path / "out", model=tmp_path / "other.pt")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_program_says_what_it_wrote(copy, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(copy)
    main(["--task", "dermoscopy", "--output-dir", str(tmp_path / "out")])
    (path,) = (tmp_path / "out").iterdir()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    size = path.stat().st_size / 1e6
    assert capsys.readouterr().out.splitlines()[-1] == f"Wrote {path} ({size:.1f} MB, unsigned), SHA-256 {digest}"
