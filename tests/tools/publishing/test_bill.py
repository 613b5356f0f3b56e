# SPDX-License-Identifier: Apache-2.0
"""The bill of materials against what pip says of the installed packages, and against packages made up here."""

import hashlib
import json
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.publishing.bill import dependencies
from tests.helpers.commands import ROOT


@pytest.fixture(scope="module")
def bill(package) -> dict:
    return json.loads(package.files["bom.cdx.json"])


@pytest.fixture(scope="module")
def graph(bill) -> dict[str, set[str]]:
    """Return the names of the libraries, each with those that it needs."""
    names = {item["bom-ref"]: item["name"] for item in bill["components"] if item["type"] == "library"}
    edges = {line["ref"]: line.get("dependsOn", []) for line in bill["dependencies"]}
    assert names.keys() < edges.keys()
    return {name: {names[other] for other in edges[purl]} for purl, name in names.items()}


def test_the_license_of_the_weights(bill, package):
    metadata = json.loads(package.files["configs/metadata.json"])
    (weights,) = [item for item in bill["components"] if item["type"] == "machine-learning-model"]
    assert weights["licenses"] == [{"license": {"id": metadata["weights_license"]}}]


def test_libraries_in_the_versions_that_are_pinned(bill):
    pins = (ROOT / "constraints.txt").read_text()
    for item in bill["components"]:
        if item["type"] == "library":
            name, version = item["name"], item["version"]
            assert item["purl"] == f"pkg:pypi/{name}@{version}" == item["bom-ref"]
            pinned = re.search(rf"(?mi)^{name.replace('-', '[-_]')}==(.+)$", pins)
            assert pinned is None or pinned[1] == version  # a build for GPUs has more, which are not pinned
            assert pinned is not None or name.startswith(("nvidia-", "triton", "cuda-"))


def test_what_is_declared_comes_first_and_fits(bill):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = project["dependencies"] + [
        text for extra in ("train", "nrrd") for text in project["optional-dependencies"][extra]
    ]
    requirements = {canonicalize_name(Requirement(text).name): Requirement(text) for text in needed}
    own, weights = bill["metadata"]["component"], bill["components"][0]
    libraries = {item["bom-ref"]: item for item in bill["components"][1:]}
    (direct,) = [line["dependsOn"] for line in bill["dependencies"] if line["ref"] == own["bom-ref"]]
    assert direct[0] == weights["bom-ref"]
    assert {libraries[ref]["name"] for ref in direct[1:]} == requirements.keys()
    for ref in direct[1:]:
        assert requirements[libraries[ref]["name"]].specifier.contains(libraries[ref]["version"])


@pytest.mark.slow  # pip takes a second for each
def test_what_each_library_needs_is_what_pip_shows(graph):
    command = [sys.executable, "-m", "pip", "show", "--disable-pip-version-check", *sorted(graph)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    required = {
        canonicalize_name(re.search("^Name: (.+)$", part, re.M)[1]): {
            canonicalize_name(name) for name in re.search("^Requires: ?(.*)$", part, re.M)[1].split(", ") if name
        }
        for part in shown.split("\n---\n")
    }
    assert required == graph


def test_nothing_is_listed_twice_or_for_nothing(bill, graph):
    references = [item["bom-ref"] for item in bill["components"]]
    assert len(set(references)) == len(references)
    needed = set().union(*graph.values())
    direct = bill["dependencies"][0]["dependsOn"]
    assert all(name in needed or any(ref.startswith(f"pkg:pypi/{name}@") for ref in direct) for name in graph)


def test_the_weights(bill, package):
    (weights,) = [item for item in bill["components"] if item["type"] == "machine-learning-model"]
    assert weights["hashes"][0]["content"] == hashlib.sha256(package.files["models/model.pt"]).hexdigest()


def test_extras_markers_and_circles(tmp_path, monkeypatch):
    made_up = {
        "Made_Up.A": ["made-up-b[more]", "made-up-absent; sys_platform == 'nowhere'"],
        "made-up-b": ["made-up-c; extra == 'more'", "made-up-absent; extra == 'other'", "made-up-a"],
        "made-up-c": [],
    }
    for name, requires in made_up.items():
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {r}" for r in requires)]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    everything = {"made-up-a": ["made-up-b"], "made-up-b": ["made-up-a", "made-up-c"], "made-up-c": []}
    assert dependencies([Requirement("made-up-a")]) == everything
    assert dependencies([Requirement("made-up-b"), Requirement("made-up-a")]) == everything
    with pytest.raises(PyrasegError, match="made-up-absent is not installed"):
        dependencies([Requirement("made-up-b[other]")])
