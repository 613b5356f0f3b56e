# SPDX-License-Identifier: Apache-2.0
"""The bundle's metadata against MONAI's schema and against what else says the same."""

import hashlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import pytest
from monai.bundle import ConfigParser, verify_net_in_out

from bundle.pyraseg.core import task_files
from bundle.pyraseg.runtime import Model
from bundle.pyraseg.training.checkpoints import load_model, read_model
from tests.helpers.configs import PROGRAMS, merged, paths

ROOT = Path(__file__).resolve().parents[2]
#: Tasks whose metadata are an overlay on the bundle's, as their configs are on its configs.
#: Arguments that came after some of the included weights, and what these were trained with.
NEWER = {
    "network.decoder_stride": 4,
    "network.patch_stem": False,
    "regions": None,
    "sequences": None,
    "sequence_dropout": 0,
}
TASKS = sorted(path.name.removesuffix("_metadata.json") for path in (ROOT / "configs").glob("*_metadata.json"))


@pytest.fixture(scope="module")
def metadata() -> dict:
    return json.loads((ROOT / "configs" / "metadata.json").read_text())


@pytest.fixture(scope="module", params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def task_metadata(task: str) -> dict:
    return ConfigParser.load_config_files(task_files(ROOT / "configs", "metadata", task))


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
    assert (
        image["num_channels"] == len(image["channel_def"]) == len(train["windows"]) * (2 * train["context_slices"] + 1)
    )
    (windowing,) = [step for step in train["train"]["preprocessing"]["transforms"] if "windows" in step]
    assert image["value_range"] == windowing["output_range"]


# --- tasks ---


def test_metadata_of_a_task_are_valid(task_metadata, metadata, real_data):
    schema = json.loads((real_data / "monai_meta_schema_20240725.json").read_text())
    jsonschema.validate(task_metadata, schema)
    assert task_metadata.keys() == metadata.keys()


def test_metadata_of_a_task_are_those_of_its_config(task, task_metadata):
    parser = merged(PROGRAMS[f"infer {task}"])
    names, channels = (parser.get_parsed_content(key) for key in ("class_names", "network_def#in_channels"))
    image, output = (task_metadata["network_data_format"][key] for key in ("inputs", "outputs"))
    assert task_metadata["image_kind"] == parser["image_kind"]
    if parser["image_kind"] != "photograph":  # whose modality is a word for people
        assert image["image"]["modality"] in parser["modality"]
    assert image["image"]["num_channels"] == len(image["image"]["channel_def"]) == channels
    assert output["pred"]["num_channels"] == len(names)
    assert output["pred"]["channel_def"] == {str(index): name for index, name in enumerate(names)}
    assert task_metadata["label_classes"] == ", ".join(f"{index} {name}" for index, name in enumerate(names))


def test_the_network_of_a_task_takes_what_its_metadata_say(task):
    verify_net_in_out(
        net_id="network_def",
        meta_file=[str(file) for file in task_files(ROOT / "configs", "metadata", task)],
        config_file=paths(PROGRAMS[f"infer {task}"]),
    )


def with_newer(of_training, settings):
    return {**{key: value for key, value in NEWER.items() if key in settings}, **of_training}


def load_included(parser, path):
    settings = parser.get_parsed_content("settings")
    load_model(parser.get_parsed_content("network_def"), path, settings=settings, remedy="")
    assert settings.values == with_newer(read_model(path)[1], settings.values)


def require_form(path, own, parser):
    """Hold an exported form to the weights that it says it is of, and to the config of their task."""
    about = Model(path, threads=1).properties
    assert about["weights_sha256"] == own[path.relative_to(ROOT).as_posix().replace(".int8.onnx", ".pt")]
    assert about["precision"] == "int8" and json.loads(about["class_names"]) == parser["class_names"]
    settings = parser.get_parsed_content("settings").values
    assert settings == with_newer(json.loads(about["settings"]), settings)


def test_weights_that_come_along_are_those_of_the_metadata(task):
    own = json.loads((ROOT / "configs" / f"{task}_metadata.json").read_text()).get("weights", {})
    for name, digest in own.items():
        path = ROOT / name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
        assert path.stat().st_size <= 20e6
        if path.suffix == ".onnx":
            require_form(path, own, merged(PROGRAMS[f"infer {task}"]))
            continue
        parser = merged(PROGRAMS[f"infer {task}"])
        assert Path(parser.get_parsed_content("model_file")).resolve() == path
        load_included(parser, path)


def test_the_model_of_the_default_task_that_comes_along(metadata):
    ((name, digest),) = metadata["weights"].items()
    path = ROOT / name
    assert name == "models/phantom.pt" and hashlib.sha256(path.read_bytes()).hexdigest() == digest
    load_included(merged(["inference.json"]), path)


def test_the_license_of_the_weights_is_that_which_the_terms_of_their_data_say(task, task_metadata):
    terms = ROOT / "docs" / "data_licenses" / f"{re.sub('_(click|fast)$', '', task)}.txt"
    if not terms.is_file():
        assert "weights" not in json.loads((ROOT / "configs" / f"{task}_metadata.json").read_text())
        return
    names = {"Apache-2.0": "Apache License 2.0", "CC-BY-SA-4.0": "CC BY-SA 4.0"}
    said = " ".join(terms.read_text().split())
    assert re.search(rf"The weights are licensed (as the bundle is: )?{names[task_metadata['weights_license']]}", said)


def test_what_comes_along_is_described(metadata):
    described = {name for task in TASKS for name in json.loads(
        (ROOT / "configs" / f"{task}_metadata.json").read_text()).get("weights", {})}  # fmt: skip
    tracked = subprocess.run(["git", "ls-files", "models"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(tracked.stdout.split()) == described | set(metadata["weights"])


def test_a_task_without_a_figure_says_that_it_is_untested(task, task_metadata):
    untested = not task_metadata["eval_metrics"]
    assert task_metadata["intended_use"].startswith("Untested") == untested
    for program in (f"train {task}", f"infer {task}"):
        config = merged(PROGRAMS[program])
        assert ("note" in config and config["note"].startswith("Untested")) == untested
        assert any("@note" in step.values() for step in config["initialize"] if isinstance(step, dict)) == untested
