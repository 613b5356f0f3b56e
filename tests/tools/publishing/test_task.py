# SPDX-License-Identifier: Apache-2.0
"""Base and overlay as one config: the same to MONAI, and without a word of the files that it was made of."""

import json
import re

import pytest
from monai.bundle import ConfigParser

from bundle.pyraseg.core import DEFAULT_TASK, task_names
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.workflow.config import config_text
from bundle.pyraseg_tools.publishing.task import Task
from tests.helpers.commands import ROOT
from tests.helpers.configs import OVERLAYS, PROGRAMS, merged

PARTS = {"train": "train", "evaluate": "evaluate", "inference": "infer"}
TOLD_ANEW = {"model_file", "remedy"}


def test_every_task_is_found():
    assert set(task_names(ROOT / "configs")) == {DEFAULT_TASK, *OVERLAYS}
    with pytest.raises(PyrasegError, match=r"no task 'dermoscpy'\. Its tasks are phantom, dermoscopy"):
        Task(ROOT, "dermoscpy")


@pytest.mark.parametrize("program", PARTS)
@pytest.mark.parametrize("name", [DEFAULT_TASK, *OVERLAYS])
def test_one_file_is_what_monai_makes_of_several(name, program, tmp_path):
    path = tmp_path / f"{program}.json"
    path.write_text(config_text(Task(ROOT, name).config(program)))
    parser = ConfigParser()
    parser.read_config(str(path))
    several = merged(PROGRAMS[PARTS[program] if name == DEFAULT_TASK else f"{PARTS[program]} {name}"]).get()
    assert parser["model_file"] == "$@bundle_root + '/models/model.pt'"
    if program != "train":
        told = ConfigParser(json.loads(path.read_text()) | {"bundle_root": str(tmp_path)}).get_parsed_content("remedy")
        assert "--config_file configs/train.json`" in told
    if program == "evaluate":
        assert several.pop("training") == "%run"
    if isinstance(several.get("dataset_dir"), dict):  # the phantom study, which no package can write
        several["dataset_dir"] = several["dataset_dir"]["folder"]
    if "distill_from" in several:  # another model, which stays behind
        several["distill_from"] = None
    assert parser.get().keys() == several.keys()
    assert {key: value for key, value in parser.get().items() if key not in TOLD_ANEW} == {
        key: value for key, value in several.items() if key not in TOLD_ANEW
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_text_names_a_file_that_stays_behind(name):
    task = Task(ROOT, name)
    for program in ("train", "evaluate", "inference", "metadata"):
        text = config_text(task.config(program))
        assert not re.search(rf"{name}(_inference|_metadata)?\.(json|pt)", text), program


def test_the_model_is_that_of_the_configs():
    assert Task(ROOT, DEFAULT_TASK).model == ROOT / "models" / "model.pt"
    assert Task(ROOT, "dermoscopy").model == ROOT / "models" / "dermoscopy.pt"


@pytest.mark.parametrize("name", [DEFAULT_TASK, "dermoscopy"])
def test_a_card_goes_anywhere(name):
    text = Task(ROOT, name).card.read_text()
    assert "configs/" not in text and "python -m" not in text and "models/dermoscopy" not in text
    assert {link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link and link[0] != "#"} <= {
        "../README.md"
    }


def test_overlays_for_any_task_go_along():
    assert {"multi_gpu_train.json", "calibrate.json"} <= {
        path.name for path in Task(ROOT, DEFAULT_TASK).other_overlays()
    }
    of_tasks = {
        f"{task}{suffix}.json" for task in ("photographs", *OVERLAYS) for suffix in ("", "_inference", "_metadata")
    }
    assert not of_tasks & {path.name for path in Task(ROOT, "dermoscopy").other_overlays()}
