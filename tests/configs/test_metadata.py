# SPDX-License-Identifier: Apache-2.0
"""The bundle's metadata against MONAI's schema and against what else says the same."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def metadata() -> dict:
    return json.loads((ROOT / "configs" / "metadata.json").read_text())


@pytest.fixture(scope="module")
def train() -> dict:
    return ConfigParser.load_config_file(ROOT / "configs" / "train.json")


def test_valid_against_the_schema(metadata, real_data):
    schema = json.loads((real_data / "monai_meta_schema_20240725.json").read_text())
    jsonschema.validate(metadata, schema)
    with pytest.raises(jsonschema.ValidationError):  # the schema does say something
        jsonschema.validate({key: value for key, value in metadata.items() if key != "monai_version"}, schema)
    assert metadata["schema"] == "https://project-monai.github.io/schema/meta_schema_20240725.json"


def test_version_is_that_of_the_package_and_in_the_changelog(metadata):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["version"] == project["version"]
    assert metadata["version"] in metadata["changelog"]


def test_versions_of_packages_are_those_that_are_tested(metadata):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    tested = {name.lower().replace("_", "-"): version.split()[0] for name, version in tested.items()}
    stated = {name: metadata[f"{name}_version"] for name in ("monai", "pytorch", "numpy")}
    stated["torch"] = stated.pop("pytorch")
    stated |= metadata["required_packages_version"]
    assert {name: tested.get(name.lower().replace("_", "-")) for name in stated} == stated


def test_classes_are_those_of_the_config(metadata, train):
    output = metadata["network_data_format"]["outputs"]["pred"]
    assert output["channel_def"] == {str(index): name for index, name in enumerate(train["class_names"])}
    assert output["num_channels"] == len(train["class_names"])


def test_channels_are_the_windows_of_the_config(metadata, train):
    image = metadata["network_data_format"]["inputs"]["image"]
    assert image["num_channels"] == len(image["channel_def"]) == len(train["windows"]) * (2 * train["neighbours"] + 1)
    (windowing,) = [step for step in train["train"]["preprocessing"]["transforms"] if "windows" in step]
    assert image["value_range"] == windowing["output_range"]
