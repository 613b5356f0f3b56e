# SPDX-License-Identifier: Apache-2.0
"""Inputs that are unlike the images of the training: the table, the log, and those that are refused."""

import csv
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.inference import (
    GUARD,
    ImageGuard,
    InputDataset,
    SavePredictions,
    SegmentOne,
    Tally,
    VolumeTable,
    read_guard,
)
from bundle.pyraseg.runtime import image_statistics
from tests.helpers.guards import made_up_guard

NAMES = ["flat", "noise"]


def load(item: dict) -> dict:
    torch.manual_seed(0)
    plane = torch.zeros(1, 16, 15) if item["name"] == "flat" else 9 * torch.randn(1, 16, 15)
    image = MetaTensor(plane)
    return {**item, "image": image, "original": image.clone()}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return a file of weights whose guard finds noise unlike and a flat image like its training."""
    flat, noise = (image_statistics(load({"name": name})["image"].numpy()) for name in NAMES)
    guard = replace(made_up_guard(1), center=flat)
    content = OrderedDict(weight=torch.ones(1))
    vars(content)["_metadata"] = OrderedDict({GUARD: replace(guard, threshold=guard.unlike([noise]) / 3).text})
    torch.save(content, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def run(out: Path, weights: Path, unlike: str) -> tuple[Tally, dict[str, str]]:
    """Segment both, and return the books and the column of the table."""
    data = [{"image": "", "name": name} for name in NAMES]
    tally = Tally(data)
    writers = {"volumes": VolumeTable(output_dir=out, class_names=["background", "thing"])}
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(InputDataset(data, load, tally=tally), batch_size=1),
        network=torch.nn.Identity(),
        inferer=lambda images, _: SimpleInferer()(images, torch.zeros_like),
        iteration_update=SegmentOne(tally=tally, guard=ImageGuard(weights, unlike=unlike)),
        val_handlers=[SavePredictions(out, outputs="volumes", writers=writers, tally=tally)],
        decollate=True,
    )
    evaluator.run()
    with (out / "volumes.csv").open(newline="") as file:
        return tally, {row["case"]: row["unlike"] for row in csv.DictReader(file)}


def test_the_table_and_the_log_tell_how_far_an_input_is(weights, tmp_path, caplog):
    tally, column = run(tmp_path / "out", weights, "warn")
    assert column == {"flat": "0.000", "noise": "3.000"} and not tally.failures
    assert "noise: it is unlike the images that the model was trained on, 3.00 times as far" in caplog.text
    assert "flat: it is unlike" not in caplog.text


def test_one_that_is_refused_stops_no_other(weights, tmp_path):
    tally, column = run(tmp_path / "out", weights, "refuse")
    assert list(column) == ["flat"]
    with pytest.raises(PyrasegError, match="1 of 2 inputs failed, the others were segmented:\n  noise: it is unlike"):
        tally.require_all()


def test_where_nobody_looks_the_column_is_empty(weights, tmp_path, caplog):
    tally, column = run(tmp_path / "out", weights, "ignore")
    assert column == {"flat": "", "noise": ""} and not tally.failures
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_weights_without_a_guard_say_so_once(tmp_path, caplog):
    torch.save({"weight": torch.ones(1)}, tmp_path / "model.pt")
    tally, column = run(tmp_path / "out", tmp_path / "model.pt", "refuse")
    assert column == {"flat": "", "noise": ""} and not tally.failures
    told = [record.getMessage() for record in caplog.records if "has no guard" in record.getMessage()]
    assert len(told) == 1 and str(tmp_path / "model.pt") in told[0]
    assert read_guard(tmp_path / "compiled elsewhere.pt") is None


def test_a_knob_of_another_value_is_refused(tmp_path):
    with pytest.raises(PyrasegError, match=r"unlike is one of warn, refuse, ignore, not 'wran'\."):
        ImageGuard(tmp_path / "model.pt", unlike="wran")
