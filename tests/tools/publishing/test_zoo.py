# SPDX-License-Identifier: Apache-2.0
"""A package in a clone of MONAI's model zoo, against the rules of its guide and what its CI runs."""

import hashlib
import json
import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.packaging.form import METADATA, Verified
from bundle.pyraseg_tools.commands.publish import arguments, to_zoo
from bundle.pyraseg_tools.publishing.zoo import LARGEST, write_zoo, zoo_files
from tests.helpers.commands import ROOT, monai_bundle
from tests.helpers.packages import VERSION, Package
from tests.helpers.warm import python
from tests.helpers.web_site import Site, serve

NAME = "pyraseg_dermoscopy"
URL = f"https://huggingface.co/someone/{NAME}/resolve/{VERSION}"


@pytest.fixture(scope="module")
def verified(package: Package) -> Verified:
    """Return the package as `verify` returns it, without what takes its time."""
    return Verified(NAME, json.loads(package.files[METADATA]), dict(package.files))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return what a clone of the zoo has that tells it from another folder."""
    (tmp_path / "zoo" / "models").mkdir(parents=True)
    used = {"spleen_ct_segmentation_v0.5.9": {"checksum": "", "source": ""}}
    (tmp_path / "zoo" / "models" / "model_info.json").write_text(json.dumps(used))
    return tmp_path / "zoo"


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_its_files(verified, clone):
    options = arguments(["some.zip", "--unsigned", "--zoo", str(clone), "--url", URL + "/"])
    told = to_zoo(verified, options)
    folder = clone / "models" / NAME
    assert told == f"Wrote {NAME} {VERSION} to {folder}; its large files come from {URL}/"
    found = content(folder)
    large = yaml.safe_load(found.pop("large_files.yml"))
    assert large == {"large_files": [{
        "path": "models/model.pt", "url": f"{URL}/models/model.pt",
        "hash_val": hashlib.sha256(verified.files["models/model.pt"]).hexdigest(), "hash_type": "sha256",
    }]}  # fmt: skip
    left_out = {"models/model.pt", "SHA256SUMS", "SHA256SUMS.sig"}
    assert found == {path: text for path, text in verified.files.items() if path not in left_out}
    assert {"LICENSE", "configs/metadata.json", "configs/inference.json", "docs/data_license.txt"} <= found.keys()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model_info.json", NAME]


def test_what_would_be_written(verified, clone):
    options = arguments(["some.zip", "--unsigned", "--zoo", str(clone), "--url", URL, "--dry-run"])
    told = to_zoo(verified, options).splitlines()
    assert any(line.endswith("  large_files.yml") for line in told)
    assert not any("models/model.pt" in line for line in told)
    assert not (clone / "models" / NAME).exists()


def test_large_files(verified):
    """Whatever lies in models/, which the zoo's git ignores, and whatever is over what its commits may hold."""
    more = {"models/model.temperature.json": b"{}", "golden/large": bytes(LARGEST + 1), "golden/small": bytes(LARGEST)}
    files = zoo_files(verified.files | more, URL)
    entries = yaml.safe_load(files["large_files.yml"])["large_files"]
    assert [entry["path"] for entry in entries] == ["golden/large", "models/model.pt", "models/model.temperature.json"]
    assert files.keys() & {entry["path"] for entry in entries} == set() and "golden/small" in files


def test_texts_that_its_hooks_leave_as_they_are(verified):
    """No blanks at the end of lines, one newline at the end of files: fixers of the zoo would add a commit."""
    for path, text in zoo_files(verified.files, URL).items():
        if not path.startswith("golden/") and text:
            assert text.endswith(b"\n") and not text.endswith(b"\n\n"), path
            assert re.search(rb"[ \t\r]\n", text) is None, path


# --- when there is none ---


def test_a_version_that_the_zoo_has(verified, clone):
    info = clone / "models" / "model_info.json"
    info.write_text(json.dumps({f"{NAME}_v{VERSION}": {}}))
    with pytest.raises(PyrasegError, match=f"The zoo has {NAME} {VERSION} already"):
        write_zoo(verified, clone, URL)
    assert list((clone / "models").iterdir()) == [info]


def test_a_new_version_replaces_the_old_one(verified, clone):
    write_zoo(verified, clone, URL)
    newer = Verified(NAME, verified.metadata | {"version": "9.0.0"}, dict(verified.files))
    del newer.files["bom.cdx.json"]
    folder = write_zoo(newer, clone, URL)
    assert content(folder) == zoo_files(newer.files, URL)


def test_another_thing_of_its_name(verified, clone):
    (clone / "models" / NAME).mkdir()
    (clone / "models" / NAME / "thesis.txt").write_text("mine")
    with pytest.raises(PyrasegError, match="exists already and is not a bundle"):
        write_zoo(verified, clone, URL)
    assert content(clone / "models" / NAME) == {"thesis.txt": b"mine"}


def test_no_clone(verified, tmp_path):
    with pytest.raises(PyrasegError, match=r"is no clone of MONAI's model zoo: it has no models/model_info\.json"):
        write_zoo(verified, tmp_path, URL)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["models", "file:///etc", "", "ftp://x"])
def test_no_address(url, verified, clone):
    with pytest.raises(PyrasegError, match="is no address that the zoo can download from"):
        write_zoo(verified, clone, url)
    assert not (clone / "models" / NAME).exists()


# --- the zoo's rules ---


def test_what_its_requirements_install(verified):
    """The zoo installs what the metadata name, in these versions, and nothing of pyproject.toml."""
    metadata = verified.metadata
    stated = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    stated |= {"numpy": metadata["numpy_version"]} | metadata["required_packages_version"]
    lines = [Requirement(f"{name}=={version}") for name, version in stated.items()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]  # whoever has a package also trains, and reads what ITK reads
    declared = [*project["dependencies"], *extras["train"], *extras["nrrd"]]
    wanted = {canonicalize_name(Requirement(text).name): Requirement(text).specifier for text in declared}
    assert {canonicalize_name(line.name) for line in lines} == wanted.keys()
    for line in lines:
        (version,) = line.specifier
        assert wanted[canonicalize_name(line.name)].contains(version.version)


def test_keys_of_its_configs(verified):
    """The names of "Preferred Files and Keys" in the zoo's guide."""
    train, infer = (json.loads(verified.files[f"configs/{name}.json"]) for name in ("train", "inference"))
    assert {"bundle_root", "device", "network_def", "inferer", "output_dir"} <= infer.keys()
    assert {"bundle_root", "device", "dataset_dir", "output_dir", "val_interval"} <= train.keys()
    assert {"trainer", "dataset", "handlers", "preprocessing", "inferer"} <= train["train"].keys()
    assert "max_epochs" in train["train"]["trainer"] and "data" in train["train"]["dataset"]
    assert {"evaluator", "handlers", "dataset", "preprocessing", "postprocessing", "inferer", "key_metric"} <= (
        train["validate"].keys()
    )
    assert "data" in train["validate"]["dataset"]
    (validation,) = [step for step in train["train"]["handlers"] if step["_target_"].endswith("ValidationHandler")]
    assert validation["interval"] == "@val_interval"


CHECKS = """
import os, sys
root = os.path.join("models", sys.argv[1])
sys.path.insert(0, root)
from monai.bundle import ckpt_export, create_workflow, download_large_files, verify_metadata, verify_net_in_out
meta, config = os.path.join(root, "configs/metadata.json"), os.path.join(root, "configs/inference.json")
download_large_files(root)
verify_metadata(meta_file=meta, filepath=os.path.join(root, "eval/schema.json"))
common = {"meta_file": meta, "config_file": config, "bundle_root": root}
verify_net_in_out(net_id="network_def", **common)
ckpt_export(
    net_id="network_def", filepath=os.path.join(root, "models/verify_model.ts"),
    ckpt_file=os.path.join(root, "models/model.pt"), **common,
)
workflow = create_workflow(
    workflow_type="inference", logging_file=os.path.join(root, "configs/logging.conf"),
    dataset_dir=os.path.join(root, "golden"), **common,
)
missing = workflow.check_properties()
assert missing == [], missing
import bundle.pyraseg
print("the code of", os.path.relpath(bundle.pyraseg.__file__))
"""


@pytest.mark.slow
def test_what_its_ci_runs(verified, clone, real_data):
    """Weights downloaded, metadata against the schema, the network's input and output, TorchScript, properties.

    Run as the CI does it: in the root of the zoo, whose bundle is named by a relative path and put on Python's.
    """
    with serve(Site(files={"/files/models/model.pt": verified.files["models/model.pt"]})) as site:
        folder = write_zoo(verified, clone, f"{site.url}/files")
        (folder / "eval").mkdir()
        shutil.copy(real_data / "monai_meta_schema_20240725.json", folder / "eval" / "schema.json")
        run = python("-c", CHECKS, NAME, cwd=clone, environment=os.environ | {"PYTHONPATH": str(clone)})
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == f"the code of models/{NAME}/bundle/pyraseg/__init__.py"
    assert (folder / "models" / "model.pt").read_bytes() == verified.files["models/model.pt"]
    assert torch.jit.load(folder / "models" / "verify_model.ts")(torch.zeros(1, 3, 64, 96)).shape == (1, 2, 64, 96)


def test_weights_that_are_others_are_not_taken(verified, clone):
    with serve(Site(files={"/models/model.pt": b"others"})) as site:
        folder = write_zoo(verified, clone, site.url)
        run = monai_bundle("download_large_files", "--bundle_path", str(folder), cwd=clone)
    assert run.returncode != 0 and "hash check of downloaded file failed" in run.stderr
    assert not (folder / "models").exists()
