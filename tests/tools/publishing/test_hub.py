# SPDX-License-Identifier: Apache-2.0
"""A package published on a hub, with the hub's own client, and downloaded again with MONAI's commands."""

import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub import ModelCard, close_session

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.packaging.archive import read_folder
from bundle.pyraseg.packaging.form import METADATA, Verified
from bundle.pyraseg_tools.commands.publish import arguments, to_hub
from bundle.pyraseg_tools.publishing.hub import publish
from tests.helpers.commands import ROOT, monai_bundle
from tests.helpers.hub_server import TOKEN, Hub, Repository, serve_hub
from tests.helpers.packages import VERSION, Package
from tests.helpers.warm import python

NAME, REPOSITORY = "pyraseg_dermoscopy", "someone/dermoscopy"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Return a hub that the client of this process, and of those that it starts, takes for the hub."""
    with serve_hub(Hub()) as hub:
        home = tmp_path / "home"
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # LFS in its place: the store of Xet has no documented protocol
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
        yield hub
        close_session()


@pytest.fixture
def verified(package: Package) -> Verified:
    """Return the package as `verify` returns it, without what takes its time."""
    return Verified(NAME, json.loads(package.files[METADATA]), dict(package.files))


def of_version(verified: Verified, version: str, **files: bytes) -> Verified:
    return Verified(NAME, verified.metadata | {"version": version}, verified.files | files)


def program(*options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return python("-m", "scripts.publish_bundle", *options, cwd=cwd, environment=environment, fresh=True)


@pytest.mark.slow
def test_published_and_downloaded(package, hub, tmp_path):
    """The program and MONAI's download, as users run them: what arrives is what `verify` takes for the package."""
    run = program(str(package.zip), "--key", str(package.public), "--hub", REPOSITORY, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    last = run.stdout.splitlines()[-1]
    assert last == f"Published {NAME} {VERSION} at {hub.url}/{REPOSITORY}/tree/{VERSION}"
    assert TOKEN not in run.stdout + run.stderr
    repository = hub.repositories[REPOSITORY]
    assert repository.private and set(hub.stored.values()) >= {package.files["models/model.pt"]}
    assert repository.files(VERSION) == repository.files("latest_version") == package.files

    run = monai_bundle(
        "download", "--name", NAME, "--source", "huggingface_hub", "--repo", REPOSITORY, "--bundle_dir", str(tmp_path),
        cwd=tmp_path, fresh=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    folder = tmp_path / NAME
    assert read_folder(folder) == package.files
    assert {path.name for path in folder.iterdir()} - {path.partition("/")[0] for path in package.files} == {
        ".cache", ".gitattributes"
    }  # fmt: skip


@pytest.mark.slow
def test_published_without_lfs_and_loaded(verified, hub, tmp_path, monkeypatch):
    """As the client uploads where Xet is there; the network that MONAI's `load` returns has the package's weights."""
    hub.lfs = False
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    assert publish(verified, REPOSITORY) == f"{hub.url}/{REPOSITORY}/tree/{VERSION}"
    assert hub.repositories[REPOSITORY].files(VERSION) == verified.files and not hub.stored
    code = (
        "import sys, torch\nfrom monai.bundle import load\n"
        "network = load(sys.argv[1], version=sys.argv[2], source='huggingface_hub', repo=sys.argv[3], bundle_dir='.', "
        "workflow_type='inference', device='cpu')\ntorch.save(network.state_dict(), 'loaded.pt')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = python("-c", code, NAME, VERSION, REPOSITORY, cwd=tmp_path, environment=environment, fresh=True)
    assert run.returncode == 0, run.stdout + run.stderr
    shipped = torch.load(io.BytesIO(verified.files["models/model.pt"]), weights_only=True)
    loaded = torch.load(tmp_path / "loaded.pt", weights_only=True)
    assert loaded.keys() == shipped.keys() and all(loaded[key].equal(shipped[key]) for key in shipped)


@pytest.mark.slow
def test_versions(verified, hub):
    publish(verified, REPOSITORY, public=True)
    repository = hub.repositories[REPOSITORY]
    assert not repository.private
    with pytest.raises(PyrasegError, match=f"{REPOSITORY} has {VERSION} already"):
        publish(of_version(verified, VERSION, LICENSE=b"another\n"), REPOSITORY)
    assert repository.tags.keys() == {VERSION, "latest_version"}

    newer = of_version(verified, "0.10.0", LICENSE=b"newer\n")
    del newer.files["bundle/pyraseg/commands/report.py"]
    publish(newer, REPOSITORY)
    assert repository.files("0.10.0") == repository.files("latest_version") == newer.files
    assert repository.files(VERSION) == verified.files

    publish(of_version(verified, "0.9.9"), REPOSITORY)  # a mended older one
    assert repository.files("0.9.9") == verified.files
    assert repository.files("latest_version") == newer.files


@pytest.mark.parametrize("kind", ["another model", "another package", "a card"])
def test_a_repository_that_is_there(kind, verified, hub):
    """Files of an earlier version are removed, so nothing else may be there; a page that the hub wrote may."""
    repository = hub.repositories[REPOSITORY] = Repository(private=True)
    bill = json.dumps({"metadata": {"component": {"name": "pyraseg_spleen"}}}).encode()
    others = {"another model": {"thesis.bin": b"x"}, "another package": {"bom.cdx.json": bill}, "a card": {}}[kind]
    tree = {".gitattributes": b"", "README.md": b"# Mine", **others}
    before = repository.commit({path: (content, False) for path, content in tree.items()})
    if kind == "a card":
        publish(verified, REPOSITORY)
        assert repository.files(VERSION) == verified.files
        return
    holds = {"another model": "other files", "another package": "pyraseg_spleen"}[kind]
    with pytest.raises(PyrasegError, match=f"{REPOSITORY} holds {holds}, which {NAME} would replace"):
        publish(verified, REPOSITORY)
    assert list(repository.commits) == [before] and not repository.tags


def test_what_the_hub_does_not_keep_as_it_was_is_not_tagged(verified, hub):
    hub.spoiled = "configs/train.json"
    with pytest.raises(PyrasegError, match=r"configs/train\.json differs at [0-9a-f]{40}, which has no tag"):
        publish(verified, REPOSITORY)
    assert not hub.repositories[REPOSITORY].tags
    hub.spoiled = None
    publish(verified, REPOSITORY)
    assert hub.repositories[REPOSITORY].files(VERSION) == verified.files


@pytest.mark.slow
@pytest.mark.parametrize("refused", ["POST /api/repos/create", "POST .*/commit/main", "POST .*/tag/.*"])
def test_a_hub_that_refuses(refused, verified, hub):
    hub.refused = refused
    with pytest.raises(PyrasegError, match=f"did not take {NAME} {VERSION} into {REPOSITORY}.*no write permission"):
        publish(verified, REPOSITORY)
    hub.refused = None
    publish(verified, REPOSITORY)
    assert hub.repositories[REPOSITORY].files(VERSION) == verified.files


def test_a_wrong_token(verified, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(PyrasegError, match="Invalid credentials") as told:
        publish(verified, REPOSITORY)
    assert "hf_another" not in str(told.value)


def test_no_token(verified, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PyrasegError, match="There is no token"):
        publish(verified, REPOSITORY)
    assert not hub.asked


def test_no_hub(verified, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PyrasegError, match="did not take"):
        publish(verified, REPOSITORY)


@pytest.mark.parametrize("repository", ["dermoscopy", "a/b/c", "../b", "a/b..c", "a b/c", "https://x/y", ""])
def test_names_of_repositories(repository, verified, hub):
    with pytest.raises(PyrasegError, match="is no repository of the hub"):
        publish(verified, repository)
    assert not hub.asked


# --- the card ---


def test_the_hub_reads_the_card(package):
    data = ModelCard(package.files["README.md"].decode()).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "monai", "image-segmentation")
    assert {"monai", "medical", "dermoscopy"} <= set(data.tags)
    stated = json.loads(package.files[METADATA])["eval_metrics"]
    assert {result.metric_type: result.metric_value for result in data.eval_results} == stated
    assert all(result.dataset_name.startswith("ISIC 2017") for result in data.eval_results)


# --- the program ---


def test_what_would_be_published(verified, hub):
    options = arguments(["some.zip", "--unsigned", "--hub", REPOSITORY, "--dry-run"])
    told = to_hub(verified, options).splitlines()
    assert f"{len(verified.files['models/model.pt']):>12,}  models/model.pt" in told
    size = sum(len(content) for content in verified.files.values()) / 1e6
    expected = f"Nothing was published: {len(verified.files)} files of {size:.1f} MB would go to {REPOSITORY}"
    assert told[-1] == expected and len(told) == len(verified.files) + 1
    assert not hub.asked


def test_a_package_of_an_earlier_pyraseg(verified, hub):
    old = of_version(verified, VERSION, **{"README.md": b"# Pyraseg dermoscopy\n"})
    with pytest.raises(PyrasegError, match="has no front matter: an earlier pyraseg made it"):
        to_hub(old, arguments(["some.zip", "--unsigned", "--hub", REPOSITORY]))
    assert not hub.asked


@pytest.mark.parametrize(
    "options",
    [
        ["--hub", REPOSITORY],
        ["--unsigned"],
        ["--unsigned", "--hub", REPOSITORY, "--zoo", "zoo"],
        ["--unsigned", "--zoo", "zoo"],
        ["--unsigned", "--hub", REPOSITORY, "--url", "https://x"],
        ["--unsigned", "--zoo", "zoo", "--url", "https://x", "--public"],
        ["--unsigned", "--hub", REPOSITORY, "--token", "secret"],
    ],
)
def test_options_that_do_not_go_together(options, capsys):
    with pytest.raises(SystemExit):
        arguments(["some.zip", *options])
    assert "error:" in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_that_is_not_verified_is_published(package, hub, tmp_path):
    content = bytearray(package.zip.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "changed.zip").write_bytes(content)
    run = program(str(tmp_path / "changed.zip"), "--unsigned", "--hub", REPOSITORY, cwd=tmp_path)
    assert run.returncode == 1 and "is refused" in run.stderr and "Traceback" not in run.stderr
    assert not hub.asked
