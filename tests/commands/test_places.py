# SPDX-License-Identifier: Apache-2.0
"""Which configs a command takes: an overlay for volumes in 3-D brings what it stands on."""

import json

import pytest

from bundle.pyraseg.commands import config_files
from tests.helpers.commands import ROOT

CONFIGS = ROOT / "configs"


@pytest.fixture
def overlay(tmp_path):
    """Return the file of an overlay that has a patch, in a folder of its own."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"patch_size": [32, 32, 32]}))
    return path


@pytest.mark.parametrize(
    ("given", "program", "expected"),
    [
        (["heart", "MINE"], "train", ["train", "heart", "volumes", "mine"]),
        (["heart", "MINE"], "evaluate", ["train", "heart", "volumes", "mine", "evaluate"]),
        (["heart", "MINE"], "inference", ["inference", "heart_inference", "volumes_inference", "mine"]),
        (["hippocampus", "MINE"], "train", ["train", "volumes", "hippocampus", "mine"]),
        (["configs/train.json", "configs/volumes.json", "MINE"], "train", ["train", "volumes", "mine"]),
        (["heart"], "train", ["train", "heart"]),
    ],
)
def test_an_overlay_with_a_patch_stands_on_that_of_volumes_once(overlay, monkeypatch, given, program, expected):
    monkeypatch.chdir(ROOT)
    files, _ = config_files([overlay if name == "MINE" else name for name in given], program=program)
    assert [file.name.removesuffix(".json") for file in files] == expected


def test_a_whole_config_of_a_package_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    whole = json.loads((CONFIGS / "train.json").read_text()) | {"patch_size": [32, 32, 32]}
    for name in ("train", "inference"):
        (tmp_path / "configs" / f"{name}.json").write_text(json.dumps(whole))
    monkeypatch.chdir(tmp_path)
    assert [file.name for file in config_files([])[0]] == ["train.json"]
    assert [file.name for file in config_files(["configs/train.json"])[0]] == ["train.json"]
