# SPDX-License-Identifier: Apache-2.0
"""What a run is made of, told so that a change to it is seen."""

import hashlib
import json
import os
import subprocess

import pytest
from monai.bundle import ConfigParser

from bundle.pyraseg.datalists.datalist import split_hash
from bundle.pyraseg.workflow.record import revision


@pytest.fixture
def cases(tmp_path):
    for name in "abc":
        (tmp_path / name).write_text(name)
    items = [{"image": str(tmp_path / name), "label": str(tmp_path / name)} for name in "abc"]
    return {"training": items[:2], "validation": items[2:], "test": []}


def record(cases, **config) -> dict:
    content = {"record": {"_target_": "bundle.pyraseg.workflow.run_record", "cases": "@cases", "seed": "@seed"}}
    parser = ConfigParser(
        {**content, "cases": cases, "seed": 3, "epochs": 5, "deep": {"list": [1, {"a": None}]}, **config}
    )
    return parser.get_parsed_content("record")


def test_the_config_is_there_value_by_value_but_for_what_changes_no_weight(cases):
    found = record(cases, num_workers=2, resume=True)["config"]
    assert (found["epochs"], found["deep#list#0"], found["deep#list#1#a"]) == (5, 1, None)
    assert not {"num_workers", "resume"} & set(found)
    json.dumps(found)


def test_another_teacher_of_the_same_name_is_another_run(cases, tmp_path):
    (tmp_path / "teacher.pt").write_bytes(b"one")
    given = {"folder": str(tmp_path), "distill_from": "$@folder + '/teacher.pt'"}
    before = record(cases, **given)["config"]
    (tmp_path / "teacher.pt").write_bytes(b"another")
    after = record(cases, **given)["config"]
    assert {key for key in after if before[key] != after[key]} == {"distill_from#sha256"}
    assert after["distill_from#sha256"] == hashlib.sha256(b"another").hexdigest()
    assert "distill_from#sha256" not in record(cases, distill_from=str(tmp_path / "absent.pt"))["config"]
    assert "distill_from#sha256" not in record(cases, distill_from=None)["config"]


def test_a_touched_file_changes_its_case_alone(cases, tmp_path):
    before = record(cases)["data"]
    os.utime(tmp_path / "b", ns=(1, 1))
    after = record(cases)["data"]
    changed = [image for image in before["training"] if before["training"][image] != after["training"][image]]
    assert changed == [str(tmp_path / "b")] and before["validation"] == after["validation"]


def test_the_hash_of_a_split_tells_who_is_where_and_not_where_the_files_are(cases):
    here = split_hash(cases)
    moved = {
        part: [{"image": item["image"].replace("/tmp", "/data")} for item in items] for part, items in cases.items()
    }
    assert split_hash(moved) == here
    shuffled = {**cases, "training": cases["training"][::-1]}
    assert split_hash(shuffled) == here
    assert split_hash({**cases, "training": cases["training"][:1], "validation": cases["training"][1:]}) != here


def test_the_revision_is_that_of_git_and_tells_changes(tmp_path):
    assert revision(tmp_path / "nowhere") == "none"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    (tmp_path / "file").write_text("1")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "m"]):
        subprocess.run([*git, *arguments], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout[:12]
    assert revision(tmp_path) == head
    (tmp_path / "file").write_text("2")
    assert revision(tmp_path) == f"{head}+changes"
