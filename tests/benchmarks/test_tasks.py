# SPDX-License-Identifier: Apache-2.0
"""The record of the tasks: trained once through the whole program, compared by hand, and shown in the docs."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.tasks import __main__ as program
from benchmarks.tasks import tables
from benchmarks.tasks.cards import card_of, card_table
from benchmarks.tasks.networks import OURS, USERS
from benchmarks.tasks.runs import Run, read_runs, shares
from benchmarks.tasks.study import RESULTS, ROOT, TASKS, config_of
from benchmarks.tasks.tables import NOTHING
from bundle.pyraseg.core.errors import PyrasegError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
#: Knobs by which a config says what its model was trained with.
TRAINED_BY = (
    "epochs", "samples_per_epoch", "batch_size", "patient_pattern", "encoder", "decoder", "decoder_stride",
    "slice_size", "photograph_size", "patch_size", "spacing", "windows", "learning_rate", "encoder_learning_rate",
    "ema_decay",
)  # fmt: skip
TINY = ["--epochs", "4", "--samples_per_epoch", "4", "--batch_size", "2", "--val_interval", "1"]
TINY += ["--photograph_size", "[64,64]", "--slice_size", "[64,64]"]


# --- tables, from files by hand ---

#: Of every case: patient, and of both classes whether the truth holds it, Dice and Jaccard.
CASES = {
    "a_L": ("p1", (9, 0.5, 0.25), (9, 0.7, 0.35)),
    "a_R": ("p1", (9, 0.9, 0.5), (9, 0.9, 0.5)),
    "b_L": ("p2", (9, 0.2, 0.1), (0, 0.0, 0.0)),
}


def keep(
    root: Path, name: str, *, seed: int = 0, task: str = "nerves", gain: float = 0.0, parts=("test",), **knobs: Any
):
    """Write what a training leaves: the scores above, Dice larger by a gain."""
    folder = root / task / f"{name.replace(' ', '_')}-seed{seed}"
    folder.mkdir(parents=True)
    lines = ["case,class,patient,truth_voxels,predicted_voxels,dice,iou"]
    for case, (patient, *classes) in CASES.items():
        for class_name, (truth, dice, iou) in zip(("one", "other"), classes, strict=True):
            lines.append(f"{case},{class_name},{patient},{truth},9,{dice + gain:.6f},{iou:.6f}")
    for part in parts:
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")
    knobs = {"epochs": 3, "samples_per_epoch": 8, "batch_size": 2} | knobs
    record = {"name": name, "seed": seed, "knobs": knobs, "split_hash": "abc", "device": "a processor"}
    record |= {"split": {part: {"cases": 3} for part in ("training", "validation", "test")}, "parameters": 1_500_000}
    record |= {
        "epochs": 3,
        "samples_per_epoch": 8,
        "processor_minutes": 2.0 + seed,
        "validation": {"dice": 0.75 + gain},
    }
    (folder / "run.json").write_text(json.dumps(record))


def test_means_and_intervals_by_hand(tmp_path):
    keep(tmp_path, OURS)
    (run,) = read_runs(tmp_path, "nerves")
    scores = run.scores("test", "dice")
    assert (scores.cases, scores.patients, scores.classes) == (
        ["a_L", "a_R", "b_L"],
        ["p1", "p1", "p2"],
        ["one", "other"],
    )
    found = tables.mean(scores)
    one, other = (0.5 + 0.9 + 0.2) / 3, (0.7 + 0.9) / 2  # the truth of b_L lacks the other class
    assert found["mean"] == pytest.approx((one + other) / 2) and found["patients"] == 2
    # Two patients can be drawn as a a, a b, b a or b b: the outermost means are those of a patient alone.
    assert (found["low"], found["high"]) == pytest.approx((0.2, (0.7 + 0.8) / 2))
    alone = tables.mean(scores.of_class("other"))
    assert alone["mean"] == pytest.approx(other) and alone["low"] is None and tables.text(alone) == "0.800?"
    assert tables.text(found).endswith("?"), "two patients are few"


def test_differences_are_paired_and_seeds_have_a_range(tmp_path):
    root = tmp_path / "tasks"
    for seed, gain in ((0, 0.05), (1, 0.01)):
        keep(root, OURS, seed=seed, gain=gain, parts=("validation", "test"))
    keep(root, "smp U-Net", gain=0.02, parts=("validation",))
    keep(root, "smp U-Net", gain=0.03, seed=1, parts=("validation", "test"))
    ours, peer = tables.compare(tmp_path)
    assert (ours["name"], ours["seeds"], ours["processor_minutes"]) == (OURS, [0, 1], 2.5)
    assert ours["test"]["seeds"][0] - ours["test"]["seeds"][1] == pytest.approx(0.04)
    assert "ours minus this, test" not in ours
    # On validation both have two seeds, (0.05 + 0.01 - 0.02 - 0.03) / 2; on the test part the peer has seed 1 alone.
    for part, expected in (("validation", 0.005), ("test", -0.02)):
        found = peer[f"ours minus this, {part}"]
        assert [found[key] for key in ("mean", "low", "high")] == pytest.approx([expected] * 3)
        assert found["classes"]["other"]["mean"] == pytest.approx(expected) and found["classes"]["other"]["low"] is None
    table = tables.peers_table(tmp_path)
    assert (
        "| nerves | whole | smp U-Net | 2 | 1.50 M | 2.5 | Dice |" in table
        and "-0.020 [-0.020, -0.020]?; one -0.020 [" in table
    )
    assert table.splitlines()[2].startswith(f"| nerves | whole | {OURS} | 2 |") and "(seeds " in table


def test_lengths_stand_apart(tmp_path):
    keep(tmp_path / "tasks", OURS)
    for name in (OURS, USERS):
        keep(tmp_path / "tasks_share_0.25", name, epochs=1)
    assert list(shares(tmp_path)) == [1, 0.25]
    rows = tables.peers_table(tmp_path).splitlines()[2:]
    assert [row.split(" | ")[1:3] for row in rows] == [["0.25 of it", OURS], ["0.25 of it", USERS]]
    with_tasks = tables.tasks_table(tmp_path)
    assert "| nerves | 3, 3, 3 | 2 | `abc` | 3 x 8 | 2.0 | a processor | 0.750 | Dice 0.667" in with_tasks
    assert "Jaccard" in with_tasks and "; other 0.800" in with_tasks
    assert "Without a training by this program yet: dermoscopy, lungs, vessels, heart, hippocampus." in with_tasks


def test_other_lengths_or_splits_are_not_compared(tmp_path):
    keep(tmp_path, OURS)
    keep(tmp_path, "smp FPN", epochs=4)
    with pytest.raises(PyrasegError, match="cannot be compared: split, epochs, samples and batch"):
        read_runs(tmp_path, "nerves")


def test_the_figure_of_dermoscopy_is_the_jaccard(tmp_path):
    keep(tmp_path / "tasks", OURS, task="dermoscopy")
    assert tables.compare(tmp_path)[0]["test"]["figure"] == "iou"
    assert "| Jaccard 0." in tables.tasks_table(tmp_path) and "Dice 0.667" in tables.tasks_table(tmp_path)


# --- the whole program ---


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Write photographs of two eyes of ten children, with dark lines on a red ground."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for name in ("images", "masks_1stHO"):
        (root / "vessels" / name).mkdir(parents=True)
    for child in range(10):
        for side in "LR":
            mask = np.zeros((64, 64), bool)
            for start in generator.integers(5, 58, 3):
                mask[start : start + 3] = True
            image = np.where(mask[..., None], (120, 20, 20), (200, 90, 60)) + generator.normal(0, 5, (64, 64, 3))
            case = f"Image_{child:02}{side}"
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / "vessels" / "images" / f"{case}.jpg")
            Image.fromarray((mask * 255).astype(np.uint8)).save(root / "vessels" / "masks_1stHO" / f"{case}.png")
    return root


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_trained_killed_scored_and_shown(data, tmp_path, capsys):
    places = ["--data", str(data), "--work", str(tmp_path / "work"), "--cache", str(tmp_path / "cache")]
    places += ["--results", str(tmp_path / "results")]
    chosen = ["vessels", *places, "--only", OURS, USERS, *TINY]
    kept = [tmp_path / "results" / "tasks" / "vessels" / f"{name}-seed0" for name in (OURS, USERS.replace(" ", "_"))]
    checkpoint = tmp_path / "work" / "tasks" / "vessels" / kept[1].name / "checkpoints" / "epoch_0001.pt"
    running = subprocess.Popen([sys.executable, "-m", "benchmarks.tasks", "train", *chosen], cwd=ROOT)
    while not checkpoint.is_file():
        assert running.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    running.kill()
    running.wait()
    assert (kept[0] / "run.json").is_file() and not (kept[1] / "run.json").exists()
    written = (kept[0] / "run.json").stat().st_mtime_ns
    first_epoch = (tmp_path / "work" / "tasks" / "vessels" / kept[1].name / "log.csv").read_text().splitlines()[1]

    program.main(["train", *chosen])
    assert "thread(s) of" in capsys.readouterr().out
    assert (kept[0] / "run.json").stat().st_mtime_ns == written, "what is finished is not repeated"
    assert (kept[1] / "log.csv").read_text().splitlines()[1] == first_epoch, "what was stopped goes on"
    records = [json.loads((folder / "run.json").read_text()) for folder in kept]
    assert [record["epochs"] for record in records] == [4, 4] and records[0]["split"] == records[1]["split"]
    assert all({file.name for file in folder.iterdir()} == {"run.json", "log.csv", "validation.csv"} for folder in kept)
    assert all(record["processor_minutes"] >= 0 and record["parameters"] > 1e6 for record in records)
    assert read_runs(tmp_path / "results" / "tasks", "vessels")[0].figures("validation") == ["dice", "iou", "cldice"]

    shutil.rmtree(tmp_path / "work" / "tasks" / "vessels" / kept[0].name / "checkpoints")
    program.main(["score", *chosen, "--score-test"])
    program.main(["score", "vessels", *places, "--only", "smp FPN"])
    assert "vessels, smp FPN, seed 0: not trained yet, left out" in capsys.readouterr().out
    page = tmp_path / "page.md"
    page.write_text("<!-- begin tasks -->\n<!-- end tasks -->\n<!-- begin peers -->\n<!-- end peers -->\n")
    program.main(["table", "--results", str(tmp_path / "results"), "--page", str(page)])
    text = page.read_text()
    assert f"| vessels | whole | {USERS} | 1 |" in text and "clDice" in text and "| vessels | 14, 2, 4 | 2 |" in text
    assert len(json.loads((tmp_path / "results" / "tasks" / "compared.json").read_text())) == 2


def test_tasks_networks_and_folders_that_are_none_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        program.main(["train", "liver", "--data", str(tmp_path)])
    assert "there is no task liver" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        program.main(["score"])
    assert "needs --data" in capsys.readouterr().err
    with pytest.raises(PyrasegError, match="There is no folder"):
        program.main(["train", "lungs", "--data", str(tmp_path)])
    (tmp_path / "lungs").mkdir()
    with pytest.raises(PyrasegError, match=r"Among the networks of lungs there is no \['U-Net'\]"):
        program.main(["train", "lungs", "--data", str(tmp_path), "--only", "U-Net"])


# --- what is kept in the repository ---


def test_nothing_of_this_machine_is_kept():
    kept = [path for folder in shares(RESULTS).values() for path in folder.rglob("*") if path.is_file()]
    assert kept
    marks = ("/home", "/tmp", "/work", "/root", "\\\\")
    assert [path for path in kept if any(mark in path.read_text() for mark in marks)] == []


def test_the_page_shows_what_was_measured():
    page = tables.PAGE.read_text()
    assert tables.tasks_table() in page and tables.peers_table() in page


@pytest.mark.parametrize("task", [task for task in TASKS if task != "dermoscopy"])
def test_a_card_shows_what_was_measured(task):
    card = card_of(task, tables.PAGE.parent).read_text(encoding="utf-8")
    assert card_table(task, RESULTS / "tasks") in card and NOTHING not in card


def test_the_page_of_volumes_shows_what_slices_reached():
    folder = RESULTS / "hippocampus_slices"
    found = Run(folder, json.loads((folder / "run.json").read_text()))
    text = " ".join((tables.PAGE.parent / "volumes.md").read_text().split())
    dice = tables.text(tables.mean(found.scores("test", "dice")) | {"patients": tables.FEW})
    assert f"had {dice} after {found.record['epochs']} epochs of {found.record['samples_per_epoch']} slices" in text
    assert f"in {found.record['processor_minutes']} minutes, seed {found.seed}" in text


def scored_tasks() -> list[str]:
    """Return the tasks whose own network was scored on the test part."""
    found = {task: read_runs(RESULTS / "tasks", task) for task in TASKS}
    return [task for task, runs in found.items() if any(run.name == OURS and run.is_scored("test") for run in runs)]


@pytest.mark.parametrize("task", scored_tasks())
def test_metadata_and_config_agree_with_what_was_measured(task):
    found = next(run for run in read_runs(RESULTS / "tasks", task) if run.name == OURS)
    means = {f"mean_{name}": round(tables.mean(found.scores("test", name))["mean"], 3) for name in ("dice", "iou")}
    assert json.loads((CONFIGS / f"{task}_metadata.json").read_text())["eval_metrics"] == means
    config = config_of(task)
    shared = {knob: found.record["knobs"][knob] for knob in TRAINED_BY if knob in found.record["knobs"]}
    assert shared == {knob: config[knob] for knob in shared} and len(shared) > 3
