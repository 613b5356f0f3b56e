# SPDX-License-Identifier: Apache-2.0
"""Best weights, checkpoints, and what a run finds in its folder when it starts."""

import csv
import time
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.training.checkpoints import promote, read_model
from bundle.pyraseg.training.iterations import ExplainOutOfMemory
from bundle.pyraseg.training.resume import differences
from tests.helpers.holder import is_taken
from tests.helpers.threshold_run import ThresholdRun


def weight(path: Path) -> float:
    return torch.load(path, weights_only=True)["weight"].item()


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def epochs_in_logs(folder: Path) -> tuple[list[int], list[int]]:
    """Return the epochs that the CSV and TensorBoard tell."""
    with (folder / "log.csv").open(newline="") as file:
        rows = [int(row["epoch"]) for row in csv.DictReader(file)]
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return rows, [event.step for event in events.Scalars("loss")]


@pytest.mark.parametrize(("interval", "best"), [(1, 3), (2, 4), (5, 5)])
def test_best_is_the_best_of_the_validated_epochs(threshold_run, interval, best, caplog):
    with caplog.at_level("INFO"):
        run = threshold_run(epochs=5, interval=interval)
    assert weight(run.output_dir / "best.pt") == best
    dice = 2 * min(best, 3) / (best + 3)
    assert f"Best validation mean Dice {dice:.3f} at epoch {best}: {run.output_dir / 'best.pt'}" in caplog.text


def test_best_weights_are_a_plain_state_dict(threshold_run):
    run = threshold_run(epochs=1, interval=1)
    assert torch.load(run.output_dir / "best.pt", weights_only=True).keys() == run.network.state_dict().keys()


def test_a_run_without_validation_has_no_best_weights_not_even_those_of_an_earlier_run(threshold_run, caplog):
    threshold_run(epochs=2, interval=1)
    run = threshold_run(epochs=1, interval=None)
    assert not (run.output_dir / "best.pt").exists()
    assert "No epoch was validated" in caplog.text and "epoch -1" not in caplog.text
    with pytest.raises(PyrasegError, match=r"There are no weights at .*best.pt to promote"):
        promote(run.output_dir / "best.pt", run.output_dir / "model.pt")


def test_a_run_no_better_than_its_start_says_so(tmp_path, caplog):
    """The start has scored 1 before, as a retraining has it."""
    run = ThresholdRun(tmp_path / "run", epochs=2, interval=1)
    run.evaluator.state.best_metric, run.evaluator.state.best_metric_epoch = 1.0, 0
    with caplog.at_level("INFO"):
        run.run()
    assert not (run.output_dir / "best.pt").exists()
    assert "No epoch was better than the start, mean Dice 1.000: no best.pt is written" in caplog.text
    assert "at epoch 0" not in caplog.text


def test_the_last_two_checkpoints_stay(threshold_run):
    run = threshold_run(epochs=5, interval=1)
    assert checkpoints(run.output_dir) == ["epoch_0004.pt", "epoch_0005.pt"]


@pytest.fixture
def died(threshold_run, tmp_path) -> Path:
    """Return the folder of a run of six epochs that died in its fifth; the best epoch so far is the third."""
    with pytest.raises(ZeroDivisionError):
        threshold_run(epochs=6, interval=1, fails_in=5, record={"config": {"epochs": 6}})
    time.sleep(1.1)  # TensorBoard orders its files by the second in their names
    return tmp_path / "run"


@pytest.mark.parametrize("tell_memory", [False, True])
def test_a_run_that_failed_lets_other_processes_have_its_folder(tmp_path, tell_memory):
    """Their trainings may go on, though the process, such as the kernel of a notebook, lives on."""
    run = ThresholdRun(tmp_path / "run", epochs=2, interval=1, fails_in=2)
    taken = []
    run.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: taken.append(is_taken(tmp_path / "run")))
    if tell_memory:
        ExplainOutOfMemory().attach(run.trainer)
    with pytest.raises(ZeroDivisionError):
        run.run()
    assert taken == [True] and not is_taken(tmp_path / "run")
    ThresholdRun(tmp_path / "run", epochs=2, interval=1, resume=True).run()
    assert is_taken(tmp_path / "run")
    (tmp_path / "run" / "best.pt").unlink()
    with pytest.raises(PyrasegError, match="There are no weights"):
        promote(tmp_path / "run" / "best.pt", tmp_path / "model.pt")
    assert not is_taken(tmp_path / "run")


def test_a_run_that_is_refused_lets_other_processes_have_its_folder(threshold_run, died):
    with pytest.raises(PyrasegError, match="Add --resume true"):
        threshold_run(epochs=6, interval=1)
    assert not is_taken(died)


def test_a_resumed_run_goes_on_and_logs_every_epoch_once(threshold_run, died, caplog):
    before = (died / "log.csv").read_text().splitlines()
    (died / "checkpoints" / ".epoch_0005.pt.01234567.tmp").write_text("half a file, as a killed run leaves it")
    with caplog.at_level("INFO"):
        run = threshold_run(epochs=6, interval=1, resume=True, record={"config": {"epochs": 6}})
    assert "Resuming after epoch 4 of 6." in caplog.text
    assert run.trainer.state.epoch == 6 and weight(died / "best.pt") == 3
    assert (run.evaluator.state.best_metric_epoch, run.stopping.waited) == (3, 3)
    assert (died / "log.csv").read_text().splitlines()[:5] == before
    assert epochs_in_logs(died) == ([1, 2, 3, 4, 5, 6],) * 2
    assert not list(died.rglob(".*.tmp"))


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_bytes(path.read_bytes()[:200]), lambda path: path.write_text("x")]
)
def test_a_spoilt_checkpoint_costs_an_epoch_and_says_so(threshold_run, died, caplog, spoil):
    spoil(died / "checkpoints" / "epoch_0004.pt")
    with caplog.at_level("INFO"):
        threshold_run(epochs=6, interval=1, resume=True, record={"config": {"epochs": 6}})
    assert "epoch_0004.pt cannot be read" in caplog.text and "Resuming after epoch 3 of 6." in caplog.text
    assert epochs_in_logs(died) == ([1, 2, 3, 4, 5, 6],) * 2


def test_no_readable_checkpoint_is_an_error(threshold_run, died):
    for path in (died / "checkpoints").iterdir():
        path.write_text("x")
    with pytest.raises(PyrasegError, match=r"None of the checkpoints in .* can be read"):
        threshold_run(epochs=6, interval=1, resume=True)


def test_a_changed_run_is_not_resumed_and_says_what_changed(threshold_run, died):
    with pytest.raises(PyrasegError, match=r"because these have changed:\n  config: epochs: 6 then, 8 now\n"):
        threshold_run(epochs=8, interval=1, resume=True, record={"config": {"epochs": 8}})
    assert checkpoints(died) == ["epoch_0003.pt", "epoch_0004.pt"]


def test_an_unfinished_run_is_not_overwritten(threshold_run, died):
    with pytest.raises(PyrasegError, match=r"run that ended after epoch 4 of 6. Add --resume true"):
        threshold_run(epochs=6, interval=1)
    assert weight(died / "best.pt") == 3 and checkpoints(died) == ["epoch_0003.pt", "epoch_0004.pt"]


def test_a_finished_run_is_left_as_it_is_when_resumed_and_replaced_by_a_new_one(threshold_run, caplog):
    threshold_run(epochs=4, interval=1)
    time.sleep(1.1)
    with caplog.at_level("INFO"):
        resumed = threshold_run(epochs=4, interval=1, resume=True)
    assert "is finished: there is nothing to resume" in caplog.text
    assert epochs_in_logs(resumed.output_dir) == ([1, 2, 3, 4],) * 2
    run = threshold_run(epochs=1, interval=1)
    assert checkpoints(run.output_dir) == ["epoch_0001.pt"] and weight(run.output_dir / "best.pt") == 1


def test_nothing_to_resume_is_a_beginning(threshold_run, caplog):
    with caplog.at_level("INFO"):
        run = threshold_run(epochs=2, interval=1, resume=True)
    assert "There is no checkpoint" in caplog.text
    assert epochs_in_logs(run.output_dir) == ([1, 2],) * 2


def test_differences_name_the_place_and_both_values():
    before = {"config": {"epochs": 6, "loss#gamma": 2.0}, "data": {"training": {"a": "1", "b": "2"}}}
    now = {"config": {"epochs": 6, "loss#gamma": 1.0}, "data": {"training": {"a": "1", "c": "2"}}}
    assert differences(before, before) == []
    assert differences(before, now) == [
        "config: loss#gamma: 2.0 then, 1.0 now",
        "data: training: b: 2 then, nothing now",
        "data: training: c: nothing then, 2 now",
    ]


# --- weights that are not finite ---

BAD = pytest.mark.parametrize("value", [float("nan"), float("inf")])


@BAD
def test_they_end_a_run_and_those_before_stay(tmp_path, value):
    run = ThresholdRun(tmp_path / "run", epochs=3, interval=1)
    run.trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: engine.state.epoch == 2 and torch.nn.init.constant_(run.network.weight, value),
    )
    with pytest.raises(PyrasegError, match="The training, after epoch 2: 1 weights are NaN or infinite"):
        run.run()
    assert weight(run.output_dir / "best.pt") == 1 and checkpoints(run.output_dir) == ["epoch_0001.pt"]


@BAD
def test_a_run_does_not_go_on_from_them(died, threshold_run, value):
    newest = max((died / "checkpoints").iterdir())
    content = torch.load(newest, weights_only=True)
    content["parts"]["network"]["weight"][0] = value
    torch.save(content, newest)
    with pytest.raises(PyrasegError, match=r"The newest checkpoint in .*checkpoints: 1 weights are NaN or infinite"):
        threshold_run(epochs=6, interval=1, resume=True, record={"config": {"epochs": 6}})


def test_the_settings_go_with_the_best_weights(threshold_run):
    _, settings = read_model(threshold_run(epochs=1, interval=1).output_dir / "best.pt")
    assert settings == {"class_names": ["background", "lesion"], "ResampleSlicesd.spacing": 2.5}
