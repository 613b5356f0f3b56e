# SPDX-License-Identifier: Apache-2.0
"""A component finds the workflow and the parser that build it, on each road that MONAI has to a config."""

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from bundle.pyraseg.core import PyrasegError, write_text
from bundle.pyraseg.workflow.running import bundle_root, caller, running_parser
from tests.helpers.commands import monai_bundle

CONFIG = {
    "imports": ["$import pathlib"],
    "bundle_root": {"_target_": "bundle.pyraseg.workflow.bundle_root"},
    "epochs": 3,
    "run": ["$pathlib.Path('told').write_text(@bundle_root)"],
    "training": "%run",
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the config of a bundle; the current directory is another one."""
    path = tmp_path / "bundle" / "configs" / "train.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(CONFIG))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("relative", [False, True])
def test_the_command(config, tmp_path, relative):
    named = "../bundle/configs/train.json" if relative else str(config)
    done = monai_bundle("run", "training", "--config_file", named, cwd=Path.cwd(), fresh=relative)
    assert done.returncode == 0, done.stderr
    assert Path("told").read_text() == str(tmp_path / "bundle")


def test_a_workflow_and_its_properties(config, tmp_path):
    workflow = ConfigWorkflow(str(config), logging_file=False)
    workflow.initialize()
    assert workflow.bundle_root == str(tmp_path / "bundle")  # before anything has run
    workflow.run()
    assert Path("told").read_text() == str(tmp_path / "bundle")


def test_a_root_that_is_set_stays(config):
    workflow = ConfigWorkflow(str(config), logging_file=False)
    workflow.bundle_root = "/given"  # as MonaiAlgo and MONAI Label do
    workflow.initialize()
    assert workflow.parser.get_parsed_content("bundle_root") == "/given"


def test_a_parser_alone_means_the_current_directory(config, tmp_path):
    parser = ConfigParser()
    parser.read_config(str(config))  # as ckpt_export, onnx_export and verify_net_in_out do
    assert parser.get_parsed_content("bundle_root") == str(tmp_path / "elsewhere")


def test_a_config_that_is_checked_begins_a_run(config, tmp_path):
    """What one run has read, another run of the process may write."""
    model = tmp_path / "model.pt"
    model.write_text("weights")
    content = {
        "image_kind": "volume",
        "model_file": str(model),
        "initialize": [{"_target_": "bundle.pyraseg.workflow.check_config"}],
        "run": [{"_target_": "bundle.pyraseg.core.protect", "paths": ["@model_file"]}],
    }
    config.write_text(json.dumps(content))

    def start() -> ConfigWorkflow:
        workflow = ConfigWorkflow(str(config), logging_file=False, workflow_type="train")
        workflow.initialize()
        return workflow

    start().run()
    with pytest.raises(PyrasegError, match="input of this run"):
        write_text(model, "other weights")
    start()
    write_text(model, "other weights")
    assert model.read_text() == "other weights"


def test_the_parser_is_the_one_that_builds():
    inner = ConfigParser({"epochs": 7, "parser": {"_target_": "bundle.pyraseg.workflow.running.running_parser"}})
    outer = ConfigParser({"epochs": 3, "found": "$@get('parser')", "get": inner.get_parsed_content, **inner.get()})
    outer["epochs"] = 3
    assert outer.get_parsed_content("found") is inner
    assert outer.get_parsed_content("parser") is outer


def test_what_is_called_self_is_no_parser_unless_it_builds():
    class Odd(ConfigParser):
        def ask(self) -> tuple:
            return caller(ConfigParser.get_parsed_content), bundle_root()

    assert Odd({}).ask() == (None, str(Path.cwd()))
    with pytest.raises(RuntimeError, match="name it in a config"):
        running_parser()
