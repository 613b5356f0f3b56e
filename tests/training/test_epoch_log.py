# SPDX-License-Identifier: Apache-2.0
"""One line an epoch, a CSV file and TensorBoard, from a training whose figures are known."""

import csv
import re
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bundle.pyraseg.training.epoch_log import describe

COLUMNS = ["epoch", "stage", "rate/head", "loss", "dice", "dice/lesion", "iou/lesion", "false_alarms/lesion", "seconds"]


def test_csv_has_a_row_an_epoch_and_scores_where_it_was_validated(threshold_run):
    run = threshold_run(epochs=6, interval=2)
    with (run.output_dir / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(set(rows[0]) - {"gpu_memory_mb"}) == sorted(COLUMNS)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [row["stage"] for row in rows] == ["first"] * 3 + ["second"] * 3
    assert [float(row["loss"]) for row in rows] == pytest.approx([n + 0.1 for n in range(1, 7)])
    assert {row["rate/head"] for row in rows} == {"0.1"}
    for row in rows[::2]:
        assert row["dice"] == row["dice/lesion"] == row["iou/lesion"] == row["false_alarms/lesion"] == ""
    for name in ("dice", "dice/lesion"):
        assert [float(row[name]) for row in rows[1::2]] == pytest.approx([4 / 5, 6 / 7, 6 / 9])
    assert [float(row["iou/lesion"]) for row in rows[1::2]] == pytest.approx([2 / 3, 3 / 4, 3 / 6])
    assert [row["false_alarms/lesion"] for row in rows[1::2]] == ["0", "0", "1"]
    assert all(float(row["seconds"]) >= 0 for row in rows)


def scalars(run) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run.output_dir / "tensorboard")).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_the_same_figures_as_scalars(threshold_run):
    found = scalars(threshold_run(epochs=4, interval=2))
    assert set(found) - {"gpu_memory_mb"} == set(COLUMNS) - {"epoch", "stage"}
    assert found["loss"] == [(n, pytest.approx(n + 0.1)) for n in range(1, 5)]
    assert found["dice/lesion"] == [(2, pytest.approx(4 / 5)), (4, pytest.approx(6 / 7))]
    assert found["iou/lesion"] == [(2, pytest.approx(2 / 3)), (4, pytest.approx(3 / 4))]
    assert found["rate/head"] == [(n, pytest.approx(0.1)) for n in range(1, 5)]


def test_a_second_run_in_the_same_folder_replaces_the_logs_of_the_first(threshold_run):
    threshold_run(epochs=3, interval=1)
    time.sleep(1.1)  # TensorBoard orders its files by the second in their names
    run = threshold_run(epochs=2, interval=1)
    assert [step for step, _ in scalars(run)["loss"]] == [1, 2]
    assert len((run.output_dir / "log.csv").read_text().splitlines()) == 1 + 2


def test_every_epoch_is_one_line_in_the_log(threshold_run, caplog):
    with caplog.at_level("INFO"):
        threshold_run(epochs=2, interval=2)
    lines = [re.sub(r"GPU .*", "", r.getMessage()) for r in caplog.records if r.name.endswith("training.epoch_log")]
    assert lines == [
        "epoch 1/2 first | rates head 1e-01 | loss 1.100 | 0 s",
        "epoch 2/2 second | rates head 1e-01 | loss 2.100 | Dice 0.800 (lesion 0.80) | 0 s",
    ]


def test_the_line_leaves_out_what_is_zero_and_tells_false_alarms():
    row = {
        "epoch": 7,
        "stage": "new parts",
        "rate/encoder": 0.0,
        "rate/head": 5e-4,
        "loss": 0.25,
        "dice": 0.5,
        "dice/liver": 0.9,
        "dice/lesion": 0.1,
        "iou/liver": 0.8,
        "iou/lesion": 0.05,
        "false_alarms/liver": 0,
        "false_alarms/lesion": 2,
        "seconds": 12.3,
        "gpu_memory_mb": 512.4,
    }
    assert describe(row, max_epochs=9) == (
        "epoch 7/9 new parts | rates head 5e-04 | loss 0.250 | Dice 0.500 (liver 0.90 lesion 0.10) | "
        "false alarms lesion 2 | 12 s | GPU 512 MB"
    )


def test_an_error_in_the_training_ends_it(threshold_run, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("tests.training.conftest.ThresholdRun.iteration", fail)
    with pytest.raises(ZeroDivisionError):  # not swallowed by the handler that closes TensorBoard
        threshold_run(epochs=1, interval=1)
