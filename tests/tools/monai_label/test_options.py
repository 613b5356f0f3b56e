# SPDX-License-Identifier: Apache-2.0
"""What clients send is what a task takes, or is refused by name."""

import os

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.monai_label.options import check_options, models

OPTIONS = {
    "device": ["cpu"],
    "pretrained": True,
    "max_epochs": 50,
    "val_split": 0.2,
    "gpus": "all",
    "spacing": None,
    "model_filename": ["model.pt", "replaced/model-1.pt"],
}


@pytest.mark.parametrize(
    "request_",
    [
        OPTIONS,  # a client sends back what it has got
        {},
        {"image": "ct", "max_epochs": 3, "val_split": 1, "pretrained": False, "spacing": 2.5},
        {"model_filename": "replaced/model-1.pt"},
        {"device": "cuda:1"},  # a name that this machine's list does not have, which PyTorch knows
    ],
)
def test_what_a_task_takes_passes(request_):
    check_options(OPTIONS, request_)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_epochs", "3", "max_epochs is '3'. Give a value such as 50."),
        ("max_epochs", True, "max_epochs is True. Give a value such as 50."),
        ("max_epochs", 2.5, "max_epochs is 2.5. Give a value such as 50."),
        ("max_epochs", None, "max_epochs is None. Give a value such as 50."),
        ("pretrained", "false", "pretrained is 'false'. Give a value such as True."),
        ("val_split", [0.2], r"val_split is \[0.2\]. Give a value such as 0.2."),
        ("device", 0, "device is 0. Give one of 'cpu'."),
        ("model_filename", "../model.pt", "model_filename is '../model.pt'. Give one of 'model.pt', 'repl"),
        ("model_filename", ["other.pt"], "model_filename is 'other.pt'. Give one of"),
        ("model_filename", [], r"model_filename is \[\]. Give one of"),
        ("model_filename", {}, "model_filename is {}. Give one of"),
    ],
)
def test_what_it_does_not_take_is_refused_by_name(name, value, said):
    with pytest.raises(PyrasegError, match=said):
        check_options(OPTIONS, {name: value})


def test_models_are_the_served_one_and_those_before_the_newest_first(tmp_path):
    folder = tmp_path / "models" / "replaced"
    folder.mkdir(parents=True)
    for age, name in enumerate(("model-b.pt", "model-a.pt", "model-c.pt")):
        (folder / name).touch()
        os.utime(folder / name, (1000 - age, 1000 - age))
    assert models(str(tmp_path)) == ["model.pt", "replaced/model-b.pt", "replaced/model-a.pt", "replaced/model-c.pt"]
