# SPDX-License-Identifier: Apache-2.0
import torch
from ignite.engine import Engine

from bundle.pyraseg.inference.uncertainty import ReviewList

UNCERTAINTIES = {"a": [0.2, 0.2], "b/ct": [0.7, 0.3], "c": [float("nan"), 0.0]}


def step(engine: Engine, name: str) -> list:
    engine.state.batch = [{"name": name}]
    return [{"uncertainty": torch.tensor(UNCERTAINTIES[name], dtype=torch.float64)}]


def test_the_most_uncertain_comes_first_and_a_second_run_starts_anew(tmp_path):
    engine = Engine(step)
    ReviewList(tmp_path / "out").attach(engine)
    engine.run(["a", "b/ct", "c"])
    path = tmp_path / "out" / "review.csv"
    assert path.read_text().split() == ["case,uncertainty", "b/ct,0.50000000", "a,0.20000000", "c,0.00000000"]
    engine.run(["a"])
    assert path.read_text().split() == ["case,uncertainty", "a,0.20000000"]
