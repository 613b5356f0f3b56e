# SPDX-License-Identifier: Apache-2.0
"""A mistyped option stops a run before it begins, and the message names the nearest one."""

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

from bundle.pyraseg.core.errors import PyrasegError, mendable
from bundle.pyraseg.workflow.config import parse_options, read_config
from bundle.pyraseg.workflow.running import check_config

CONFIG = {
    "epochs": 3,
    "image_kind": "volume",
    "size": [8, 8],
    "network_def": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": "@epochs"},
    "train": {
        "transform": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "ResizeWithPadOrCropd", "keys": "image", "spatial_size": "@size", "mode": "edge"},
                {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
            ],
        }
    },
    "run": [
        {"_target_": "bundle.pyraseg.workflow.check_config"},
        "$pathlib.Path(@train#transform and 'ran').touch()",
    ],
    "imports": ["$import pathlib"],
    "training": "%run",
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that runs the config above, with some overrides, as `monai.bundle run` does."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))

    def run(run_id: str = "run", **overrides: Any) -> None:
        workflow = ConfigWorkflow("config.json", logging_file=False, run_id=run_id, workflow_type=None, **overrides)
        workflow.initialize()
        workflow.run()

    return run


def refusal(run, **overrides: Any) -> str:
    with pytest.raises(RuntimeError) as raised:
        run(**overrides)
    assert not Path("ran").exists()
    error = mendable(raised.value)
    assert isinstance(error, PyrasegError)
    return str(error)


@pytest.mark.parametrize("run_id", ["run", "training"])
def test_a_clean_config_runs(run, run_id):
    run(run_id)
    assert Path("ran").exists()


def test_a_mistyped_option_is_refused(run):
    assert refusal(run, epoch=5) == (
        "Nothing in the config uses what was given: the option 'epoch'. The nearest name is 'epochs'. Nothing was run."
    )


def test_a_mistyped_argument_of_a_component_is_refused(run):
    assert refusal(run, **{"network_def#in_feature": 5}) == (
        "Nothing in the config uses what was given: network_def: torch.nn.Linear has no argument 'in_feature'. "
        "The nearest name is 'in_features'. Nothing was run."
    )


def test_a_mistyped_argument_in_a_nested_list_is_refused(run):
    message = refusal(run, **{"train#transform#transforms#1#track_met": True})
    assert "train#transform#transforms#1: EnsureTyped has no argument 'track_met'" in message
    assert "'track_meta'" in message


def test_a_mistyped_key_of_a_section_is_refused(run):
    message = refusal(run, **{"train#transfrm": {"_target_": "Compose", "transforms": []}})
    assert "'train#transfrm'" in message and "'train#transform'" in message


def test_an_option_like_nothing_has_no_nearest_name(run):
    message = refusal(run, zzzzz=1)
    assert "the option 'zzzzz'." in message and "nearest" not in message


def test_a_key_that_is_mentioned_in_plain_text_alone_is_not_used(run):
    assert "'remark'" in refusal(run, **{"remark": 1, "network_def#bias": "see @remark"})


@pytest.mark.parametrize(
    "overrides",
    [
        {"epochs": 7},
        {"network_def#bias": False},  # an argument that the config leaves at its default
        {"train#transform#transforms#1#_disabled_": True},
        {"spacing": None},  # a knob that an overlay takes out of use
        {"inferring": []},  # a run id
        {"initialize": []},
        {"train": {**CONFIG["train"], "handlers": []}},
        {"device": "cpu"},  # a property of MONAI's
        {"val_interval": 2},
        {"run_name": "try"},  # of the experiment tracking
        {"imports": ["$import pathlib", "$import glob"]},
    ],
    ids=lambda overrides: next(iter(overrides)),
)
def test_allowed_overrides(run, overrides):
    run(**overrides)
    assert Path("ran").exists()


def test_it_says_so_when_no_config_calls_it():
    with pytest.raises(RuntimeError, match="name it in a config"):
        check_config()


@pytest.mark.parametrize("text", ["false", "FALSE"])
def test_a_switch_is_not_put_off_by_a_text_that_counts_as_true(run, text):
    assert f"'network_def#bias' takes True or False, not '{text}'" in refusal(run, **{"network_def#bias": text})
    run(**{"network_def#bias": False})


def test_options_are_read_as_monai_reads_them():
    words = ["--a", "2.5", "--b#c=[1, 2]", "--d", "[liver, spleen]", "--e", "None", "--f", "null", "--g", "{'x': True}"]
    words += ["--h", '{"x": [true]}', "--i", "a path/with=signs", "--j=-1", "--k", "False"]
    assert parse_options(words) == {
        "a": 2.5, "b#c": [1, 2], "d": ["liver", "spleen"], "e": None, "f": None, "g": {"x": True}, "h": {"x": [True]},
        "i": "a path/with=signs", "j": -1, "k": False,
    }  # fmt: skip


@pytest.mark.parametrize("words", [["epochs", "3"], ["--epochs"], ["--epochs", "--size", "3"], ["--", "3"]])
def test_what_is_no_option_with_a_value_is_refused(words):
    with pytest.raises(PyrasegError, match="are given as --key value"):
        parse_options(words)


def test_a_program_reads_configs_and_options_as_a_run_does(tmp_path):
    (tmp_path / "configs").mkdir()
    base, overlay = tmp_path / "configs" / "base.json", tmp_path / "configs" / "overlay.json"
    base.write_text(json.dumps(CONFIG))
    overlay.write_text(json.dumps({"epochs": 5, "network_def#bias": False}))
    config = read_config([base, overlay], {"size": [4, 4], "train#transform#transforms#1#track_meta": True})
    assert config.get_parsed_content("network_def").out_features == 5
    assert config["train#transform#transforms#1"] == {"_target_": "EnsureTyped", "keys": "image", "track_meta": True}
    assert (config["size"], config["bundle_root"]) == ([4, 4], str(tmp_path))
    for key, nearest in (("sizes", "size"), ("tran#transform", "train"), ("epochs#x", "epochs"), ("run#7", "run#1")):
        with pytest.raises(PyrasegError, match=rf"The nearest name is '{nearest}"):
            read_config([base, overlay], {key: 1})
    with pytest.raises(PyrasegError, match=r"There is no config at none\.json"):
        read_config(["none.json"])
