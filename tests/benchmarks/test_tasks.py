# SPDX-License-Identifier: Apache-2.0
"""What is kept of the tasks' trainings, and the table that the docs make of it."""

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from benchmarks.tasks.tables import PAGE, RESULTS, TASKS, figures, keep, table
from bundle.pyraseg.core import task_files

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

LOG = "epoch,loss,dice\n1,0.5,\n2,0.4,0.75\n3,0.3,0.5\n"
SCORES = """case,class,dice,iou
images/a_L.png,one,0.5,0.25
images/a_L.png,other,0.7,0.35
images/a_R.png,one,0.9,0.5
images/a_R.png,other,0.9,0.5
images/b_L.png,one,0.2,0.1
images/b_L.png,other,0.4,0.2
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return the folder of a run of three epochs, with scores of three cases of two patients."""
    folder = tmp_path / "work"
    (folder / "test").mkdir(parents=True)
    (folder / "log.csv").write_text(LOG)
    (folder / "test" / "scores.csv").write_text(SCORES)
    config = {"epochs": 3, "samples_per_epoch": 8, "batch_size": 2, "patient_pattern": "^(.+)_[LR]$"}
    record = {"seed": 0, "split": {"hash": "abc"}, "versions": {"python": "3"}, "revision": "r"}
    (folder / "run.json").write_text(json.dumps({**record, "config": {**config, "dataset_dir": "/home/me"}}))
    return folder


def test_figures_by_hand(work, tmp_path):
    keep("vessels", work, minutes=1.26, results=tmp_path)
    found = figures("vessels", tmp_path)
    assert (found["validation"], found["test_patients"], found["processor_minutes"]) == (0.75, 2, 1.3)
    assert found["dice"].mean == pytest.approx((0.6 + 0.9 + 0.3) / 3)
    # Two patients can be drawn as a a, a b, b a or b b: the outermost means are those of a patient alone.
    assert (found["dice"].low, found["dice"].high) == pytest.approx((0.3, 0.75))
    assert found["iou"].mean == pytest.approx((0.3 + 0.5 + 0.15) / 3)


def test_nothing_of_this_machine_is_kept(work, tmp_path):
    keep("vessels", work, minutes=1, results=tmp_path)
    kept = [path for path in (tmp_path / "vessels").iterdir()] + [path for path in RESULTS.rglob("*") if path.is_file()]
    assert len(kept) == 3 + 3 * len(TASKS)
    assert not any(mark in path.read_text() for path in kept for mark in ("/home", "/tmp", "/work", "/root", "\\"))


def test_the_page_shows_what_was_measured():
    assert table() in PAGE.read_text()


def test_the_page_of_volumes_shows_what_slices_reached():
    found = figures("hippocampus_slices", RESULTS.parent)
    text = " ".join((PAGE.parent / "volumes.md").read_text().split())
    assert f"had {found['dice']} after {found['epochs']} epochs of {found['samples_per_epoch']} slices" in text
    assert f"in {found['processor_minutes']} minutes, seed {found['seed']}" in text


@pytest.mark.parametrize("task", TASKS)
def test_metadata_and_config_agree_with_what_was_measured(task):
    found = figures(task)
    metadata = json.loads((CONFIGS / f"{task}_metadata.json").read_text())
    assert metadata["eval_metrics"] == {
        "mean_dice": round(found["dice"].mean, 3),
        "mean_iou": round(found["iou"].mean, 3),
    }
    parser = ConfigParser()
    parser.read_config([str(file) for file in task_files(CONFIGS, "train", task)])
    for knob in ("seed", "epochs", "samples_per_epoch", "batch_size", "patient_pattern"):
        assert parser[knob] == found[knob], knob
