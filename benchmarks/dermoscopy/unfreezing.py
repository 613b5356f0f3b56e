# SPDX-License-Identifier: Apache-2.0
"""Show what unfreezing an encoder does to a network before any weight of it has changed.

The new parts learn behind a frozen encoder, whose batch norm normalizes by the statistics of ImageNet. Then everything
is put in training mode, as the stage after it does, and batches pass through without any learning: the running
statistics turn into those of the photographs, which nothing behind them has learned to read. Run
``python -m benchmarks.dermoscopy.unfreezing --dataset-dir DIR``.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from benchmarks.dermoscopy.latency import RESULTS
from benchmarks.trials import CONFIGS, versions
from bundle.pyraseg.core import task_files
from bundle.pyraseg.workflow import plain_console

BATCHES = (1, 4, 16)


def measure(**overrides: Any) -> dict[str, Any]:
    """Train the new parts, then return the validation Dice after numbers of batches that nothing learned from."""
    overrides = {"ema_decay": 0} | overrides  # averaged weights and statistics would stand still
    workflow = ConfigWorkflow([str(file) for file in task_files(CONFIGS, "train", "dermoscopy")], **overrides)
    workflow.initialize()
    workflow.run()
    network, evaluator, batches, device = (
        workflow.parser.get_parsed_content(name)
        for name in ("network", "validate#evaluator", "train#dataloader", "device")
    )
    found = {"validation_cases": len(evaluator.data_loader.dataset), "dice": {0: evaluator.state.best_metric}}
    network.learn_only(network.part_names())
    weights = {name: value.clone() for name, value in network.named_parameters()}
    for number, batch in zip(range(1, max(BATCHES) + 1), batches, strict=False):
        network.train()
        with torch.no_grad():
            network(batch["image"].to(device, memory_format=torch.channels_last))
        if number in BATCHES:
            evaluator.run()
            found["dice"][number] = evaluator.state.metrics["val_mean_dice"]
    assert all(torch.equal(value, weights[name]) for name, value in network.named_parameters())
    return found


def main() -> None:
    plain_console()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-dir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2, help="of the new parts")
    parser.add_argument("--cache", type=Path, default=CONFIGS.parent / "runs" / "cache")
    parser.add_argument("--output", type=Path, default=RESULTS / "unfreezing.json")
    given = parser.parse_args()
    stage = {"name": "new parts", "epoch_fraction": 1.0, "learning_rates": {"pyramid": 1e-3, "head": 1e-3}}
    options = {"plan#stages": [stage], "epochs": given.epochs, "val_interval": given.epochs, "samples_per_epoch": 512}
    options |= {"train#dataset#data": "$@cases['training'][::4]", "validate#dataset#data": "$@cases['validation'][::3]"}
    with tempfile.TemporaryDirectory() as folder:
        places = {"output_dir": folder, "model_file": f"{folder}/model.pt", "cache_dir": str(given.cache)}
        found = measure(dataset_dir=str(given.dataset_dir), **places, **options)
    report = {"options": options, "versions": versions(), **found}
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for batches, dice in found["dice"].items():
        print(f"validation Dice after {batches:2} batches in training mode, nothing learned: {dice:.3f}")
    print(f"Written to {given.output}")


if __name__ == "__main__":
    main()
