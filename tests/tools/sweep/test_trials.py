# SPDX-License-Identifier: Apache-2.0
"""What a sweep is going to train: one split for all, and nothing where anything is wrong."""

import json
from itertools import chain
from pathlib import Path

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists import load_cases, split_hash
from bundle.pyraseg_tools.commands.sweep import arguments, main
from bundle.pyraseg_tools.sweep.settings import grid, parse_choices
from bundle.pyraseg_tools.sweep.trials import Trial, in_part, plan

RATES = ["learning_rate=0.001,0.002"]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return a folder of pairs without a data list, whose split is drawn; nothing reads the files themselves."""
    for kind in ("images", "labels"):
        (tmp_path / "study" / kind).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "study" / kind / f"case{number}.nii.gz").write_text(f"{kind} {number}")
    return tmp_path / "study"


def planned(study: Path, words: list[str], *, seeds: tuple[int, ...] = (0, 1), **options) -> list[Trial]:
    settings = grid(parse_choices(words))
    return plan([], settings, seeds, study.parent / "out", {"dataset_dir": str(study), **options})


@pytest.mark.parametrize("of_split", [0, 5])
def test_all_trainings_share_the_split_of_the_config_whatever_their_seed(study, of_split):
    trials = planned(study, RATES, seeds=(1, 2), **({"seed": of_split} if of_split else {}))
    assert [(trial.setting.values["learning_rate"], trial.seed) for trial in trials] == [
        (0.001, 1), (0.001, 2), (0.002, 1), (0.002, 2),
    ]  # fmt: skip
    expected = split_hash(load_cases(study, seed=of_split))
    assert expected != split_hash(load_cases(study, seed=1))
    assert {trial.made_of["split"] for trial in trials} == {expected}
    assert [(trial.options["seed"], trial.options["cases#seed"]) for trial in trials] == [
        (1, of_split),
        (2, of_split),
    ] * 2
    assert len({trial.folder for trial in trials}) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["learnin_rate=0.001"], "The nearest name is 'learning_rate'"),
        (["plan#stages#0#patient_fractoin=1"], "unknown fields .'patient_fractoin'"),
        (["loss#gama=1,2"], "no argument 'gama'"),
        (["learning_rate=0.001,-1"], "takes a number above 0"),
        (["epochs=2,many"], "takes a whole number"),
        (["seed=0,1"], "decides seed itself"),
        (["model_file=a.pt"], "decides model_file itself"),
        (["cases#seed=0,1"], "trained on other data, or another split"),
    ],
)
def test_what_is_wrong_stops_before_anything_is_trained(study, words, message):
    with pytest.raises(PyrasegError, match=message):
        planned(study, words)
    assert not (study.parent / "out").exists()


def test_a_mistyped_option_of_all_stops_the_command(study):
    with pytest.raises(PyrasegError, match=r"nearest name is 'epochs'"):
        main(["--output_dir", str(study.parent / "out"), "--dataset_dir", str(study), "--epoch", "3"])
    assert not list(study.parent.glob("out/*"))


def test_seeds_are_given_once_and_an_option_has_one_place(study):
    with pytest.raises(PyrasegError, match="A seed comes twice"):
        planned(study, RATES, seeds=(1, 1))
    with pytest.raises(PyrasegError, match="from 0 on, not -1"):
        planned(study, RATES, seeds=(-1, 1))
    with pytest.raises(PyrasegError, match="is in --set"):
        planned(study, RATES, learning_rate=0.1)


def test_a_result_of_other_settings_or_data_is_not_taken_for_this_one(study):
    (trial, _) = planned(study, [])
    trial.begin()
    trial.record.write_text(json.dumps({"seed": 0}))
    assert planned(study, [])[0].result() == {"seed": 0}
    assert planned(study, [], num_workers=0, cache_dir="elsewhere")[0].result() == {"seed": 0}
    with pytest.raises(PyrasegError, match="a run of other settings: epochs 12 then, 3 now"):
        planned(study, [], epochs=3)
    (study / "labels" / "case0.nii.gz").write_text("another label")
    with pytest.raises(PyrasegError, match=r"run of other settings: (other files|another split)"):
        planned(study, [])


def test_parts_are_all_of_it():
    trials = list(range(11))
    parts = [in_part(trials, (number, 4)) for number in (1, 2, 3, 4)]
    assert sorted(chain(*parts)) == trials and max(map(len, parts)) - min(map(len, parts)) == 1


@pytest.mark.parametrize("words", [["--part", "0/4"], ["--part", "5/4"], ["--part", "2"], ["--parallel", "0"]])
def test_a_wrong_part_is_a_wrong_command_line(words):
    with pytest.raises(SystemExit) as end:
        arguments(words)
    assert end.value.code == 2
