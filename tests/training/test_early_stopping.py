# SPDX-License-Identifier: Apache-2.0
"""Patience, overall and within a stage; the Dice of the training rises until its third epoch and falls from then on."""

import pytest


@pytest.mark.parametrize(("patience", "last"), [(1, 4), (2, 5), (None, 8)])
def test_the_training_ends_when_its_patience_does(threshold_run, patience, last):
    run = threshold_run(epochs=8, interval=1, patience=patience)
    assert run.trainer.state.epoch == last


def test_a_stage_without_progress_gives_way_to_the_next(threshold_run, caplog):
    with caplog.at_level("INFO"):
        run = threshold_run(epochs=12, interval=1, patience_in_first=1)
    assert "'first' ends 2 epochs early" in caplog.text
    assert run.trainer.state.epoch == 10  # four epochs of the first stage, all six of the second
    lines = (run.output_dir / "log.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1] for line in lines] == ["first"] * 4 + ["second"] * 6


@pytest.mark.parametrize("fails_in", [3, 5, 9])
def test_a_resumed_run_knows_what_was_left_out(threshold_run, fails_in):
    with pytest.raises(ZeroDivisionError):
        threshold_run(epochs=12, interval=1, patience_in_first=1, fails_in=fails_in)
    run = threshold_run(epochs=12, interval=1, patience_in_first=1, resume=True)
    assert run.trainer.state.epoch == 10
    lines = (run.output_dir / "log.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1] for line in lines] == ["first"] * 4 + ["second"] * 6


def test_the_last_epoch_is_validated_also_when_stages_were_left_out(threshold_run):
    run = threshold_run(epochs=12, interval=4, patience_in_first=1)
    assert run.evaluator.state.epoch == run.trainer.state.epoch
