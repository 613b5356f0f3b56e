# SPDX-License-Identifier: Apache-2.0
"""The bundle as a client of MONAI's `MonaiAlgo`: two hospitals, real rounds, weights averaged here."""

import csv
from pathlib import Path

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject

from bundle.pyraseg_tools.datasets.phantom.study import write_phantom_study
from tests.helpers.commands import ROOT

CONFIGS = ["configs/train.json", "configs/federated.json"]
STAGES = [
    {"name": "new parts", "epoch_fraction": 0.5, "learning_rates": {"pyramid": 2e-3, "head": 2e-3}},
    {"name": "all parts", "epoch_fraction": 0.5, "learning_rates": {"encoder": 1e-3, "pyramid": 2e-3, "head": 2e-3}},
]
ROUNDS, LOCAL_EPOCHS = 2, 2

Weights = dict[str, torch.Tensor]


def client(folder: Path, seed: int) -> MonaiAlgo:
    """Return a client with a study of its own, ready for the first round."""
    write_phantom_study(folder / "study", seed=seed, patients=4, size=48)
    options = {"dataset_dir": str(folder / "study"), "output_dir": str(folder), "cache_dir": str(folder / "cache")}
    options |= {"rounds": ROUNDS, "local_epochs": LOCAL_EPOCHS, "plan#stages": STAGES, "num_workers": 0}
    options |= {"encoder": "test_efficientnet", "pretrained": False, "spacing": 5, "slice_size": [64, 64]}
    options |= {"batch_size": 4, "samples_per_epoch": 16, "device": "cpu"}
    algo = MonaiAlgo(
        str(ROOT),
        local_epochs=LOCAL_EPOCHS,
        send_weight_diff=False,
        config_train_filename=CONFIGS,
        train_kwargs=dict(options),
        config_evaluate_filename=CONFIGS,
        eval_kwargs=dict(options),
    )
    algo.initialize({ExtraItems.CLIENT_NAME: folder.name})
    return algo


def average(states: list[Weights]) -> Weights:
    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(value.dtype)
        for name, value in states[0].items()
    }


def copied(weights: Weights) -> Weights:
    return {name: value.clone() for name, value in weights.items()}


def moved(before: Weights, after: Weights) -> set[str]:
    """Return the parts of which a weight or a statistic has changed."""
    return {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.slow
def test_two_clients_learn_together_and_their_stages_follow_the_rounds(tmp_path):
    clients = [client(tmp_path / name, seed) for name, seed in (("north", 1), ("south", 2))]
    start = copied(clients[0].get_weights({}).weights)
    assert not moved(start, clients[1].get_weights({}).weights)  # the same seed: the same network
    shared, scores = [start], []
    for _ in range(ROUNDS):
        results = []
        for algo in clients:
            algo.train(ExchangeObject(weights=copied(shared[-1])))
            returned = algo.get_weights({})
            assert returned.statistics["num_executed_iterations"] == LOCAL_EPOCHS * 4
            results.append(copied(returned.weights))
        assert moved(*results)  # each learned from its own data
        shared.append(average(results))
        metrics = [algo.evaluate(ExchangeObject(weights=copied(shared[-1]))).metrics for algo in clients]
        scores.append([metric["val_mean_dice"] for metric in metrics])
    assert moved(shared[0], shared[1]) == {"pyramid", "head"}
    assert moved(shared[1], shared[2]) == {"encoder", "pyramid", "head"}
    assert all(0 <= score <= 1 for both in scores for score in both)
    for algo in clients:
        algo.finalize()
    for name in ("north", "south"):
        with (tmp_path / name / "log.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
        assert [row["stage"] for row in rows] == ["new parts"] * 2 + ["all parts"] * 2
        assert [bool(row["dice"]) for row in rows] == [False, True, False, True]  # validated as a round ends
