# SPDX-License-Identifier: Apache-2.0
"""A value of a wrong kind, or out of its range, stops a run before it begins, on both roads and for every knob."""

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

from bundle.pyraseg.commands import main
from bundle.pyraseg.core.errors import PyrasegError, mendable
from bundle.pyraseg.workflow import knobs, read_config
from tests.helpers.configs import CONFIGS, FILES, PROGRAMS, paths, programs

#: What nobody should be able to give: options, and what the message says.
WRONG = {
    "no epochs": ({"epochs": 0}, "'epochs' takes a whole number from 1 on, not 0"),
    "half an epoch": ({"epochs": 1.5}, "'epochs' takes a whole number from 1 on, not 1.5"),
    "a text for epochs": ({"epochs": "x"}, "not 'x'"),
    "nothing for epochs": ({"epochs": None}, "not None"),
    "a switch for epochs": ({"epochs": True}, "not True"),
    "a text for the batch": ({"batch_size": "x"}, "'batch_size' takes a whole number from 1 on, not 'x'"),
    "a batch of less than nothing": ({"batch_size": -2}, "not -2"),
    "a text for the seed, which is used first": ({"seed": "x"}, "'seed' takes a whole number from 0 on"),
    "a text for a spacing": (
        {"spacing": "fine"},
        "'spacing' takes a number above 0, or three of them for volumes in 3-D, not 'fine'",
    ),
    "no spacing": ({"spacing": 0}, "not 0"),
    "no number": ({"dropout": float("nan")}, "'dropout' takes a number from 0 to 1, not nan"),
    "a share of 200 %": ({"background_fraction": 2}, "'background_fraction' takes a number from 0 to 1, not 2"),
    "a spacing for two": ({"spacing": [1, 1]}, "three of them for volumes in 3-D, not [1, 1]"),
    "a size for two": ({"slice_size": 160}, "'slice_size' takes a list of whole numbers from 1 on"),
    "an empty slice": ({"slice_size": [160, 0]}, "not [160, 0]"),
    "a text for a switch": ({"resume": "yes"}, "'resume' takes True or False, not 'yes'"),
    "a name for a list": ({"class_names": "liver"}, "'class_names' takes a list"),
    "a number for a path": ({"dataset_dir": 2024}, "'dataset_dir' takes a text"),
    "deep in a component": ({"loss#gamma": "x"}, "'loss#gamma' takes a number, not 'x'"),
    "deep in a list": ({"train#augmentation#transforms#2#rotation": "x"}, "transforms#2#rotation' takes a number"),
    "a text of sequences": ({"sequences": "t1"}, "'sequences' takes a list of names"),
    "two of them": ({"epochs": 0, "batch_size": 0}, "'batch_size' takes a whole number from 1 on, not 0"),
}
KINDS = (
    knobs.COUNTS, knobs.NUMBERS, knobs.POSITIVE, knobs.TRIPLES, knobs.SWITCHES, knobs.SIZES, knobs.LISTS, knobs.NAMES,
    knobs.TEXTS, knobs.OF_SEQUENCES,
)  # fmt: skip
wrong = pytest.mark.parametrize(("options", "words"), WRONG.values(), ids=WRONG)


@wrong
def test_what_is_refused(options, words):
    with pytest.raises(PyrasegError) as raised:
        read_config([CONFIGS / "train.json"], options)
    assert words in str(raised.value) and "Nothing was run." in str(raised.value)


@pytest.mark.parametrize("name", ["no epochs", "a text for the seed, which is used first", "deep in a component"])
def test_the_road_of_monai(name, tmp_path, monkeypatch):
    options, words = WRONG[name]
    monkeypatch.chdir(tmp_path)
    workflow = ConfigWorkflow(str(CONFIGS / "train.json"), logging_file=False, run_id="training", **options)
    with pytest.raises(RuntimeError) as raised:
        workflow.initialize()
    assert words in str(mendable(raised.value)) and "Nothing was run." in str(mendable(raised.value))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["train", "evaluate", "export"])
def test_the_road_of_pyraseg(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([command, "--batch_size", "x"]) == 1
    told = capsys.readouterr().err
    assert "'batch_size' takes a whole number from 1 on, not 'x'" in told and "Traceback" not in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 1, "batch_size": 2, "spacing": 3, "patience": None, "previews": None, "max_grad_norm": 0.5},
        {
            "batch_size": "$2 * 4",
            "resume": "$True",
            "amp": "true",
            "slice_size": [64, "@batch_size"],
            "class_names": ("a", "b"),
        },
        {"loss#gamma": 3, "loss#lambda_dice": "$1 / 2", "start_from": "a.pt"},
    ],
)
def test_values_of_the_right_kind_pass(options):
    read_config([CONFIGS / "train.json"], options)


@programs
def test_every_knob_has_a_kind(program):
    known = {name for names in KINDS for name in names}
    # Checked by what they are for: the kind of image by its transforms, a device by PyTorch, an export by its name, a
    # phase (a number or a word) where it is read, `pretrained` (a switch or a file) by a rule of its own.
    others = {"image_kind", "device", "bundle_root", "phase", "pretrained"}
    assert {key for key in plain(PROGRAMS[program]) if key not in known | others} == set()


def test_no_kind_is_of_a_knob_that_is_gone():
    keys = {key.removeprefix("+") for name in FILES for key in json.loads((CONFIGS / name).read_text())}
    assert {name for names in (*KINDS, knobs.OPTIONAL) for name in names} - keys == set()
    assert sum(map(len, KINDS)) == len({name for names in KINDS for name in names})


def plain(files: list[str]) -> dict[str, Any]:
    """Return the knobs of a program whose value stands there: numbers, switches, texts and lists of them."""
    config = {}
    for file in paths(files):
        config |= json.loads(Path(file).read_text())
    found = {}
    for key, value in config.items():
        parts = value if isinstance(value, list) else [value]
        computed = any(isinstance(one, str) and one[:1] in "$@%" for one in parts)
        of_parts = any(isinstance(one, dict) and "_target_" in one for one in parts)
        if not any((set("#+") & set(key), value is None, computed, of_parts, isinstance(value, dict))):
            found[key] = value
    return found


@pytest.mark.slow
def test_one_knob_sets_the_encoder_in_every_stage():
    config = read_config([CONFIGS / "train.json"], {"encoder_learning_rate": 0.5})
    rates = [stage.learning_rates.get("encoder") for stage in config.get_parsed_content("plan").stages]
    assert rates == [None, 0.5, 0.5]
