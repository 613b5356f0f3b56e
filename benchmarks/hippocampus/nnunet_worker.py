# SPDX-License-Identifier: Apache-2.0
"""Train and predict with nnU-Net, inside its own environment: `benchmarks.hippocampus.nnunet` starts this."""

import argparse
import json
import os
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from nnunet_budget import BUDGET, LATEST, BudgetTrainer
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

FINAL = "checkpoint_final.pth"
CONFIGURATION = "3d_fullres"
FOLD = 0
PACKAGES = ("nnunetv2", "torch", "numpy", "batchgeneratorsv2", "dynamic-network-architectures")


def train(dataset: str, seconds: float, seed: int) -> dict:
    """Train until the budget is spent, or go on with what was stopped, and return what it took."""
    folder = Path(os.fspath(nnUNet_preprocessed), dataset)
    plans = json.loads((folder / "nnUNetPlans.json").read_text(encoding="utf-8"))
    described = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    torch.manual_seed(seed)
    np.random.seed(seed)
    plans["continue_training"] = False  # of loggers that nobody uses here
    trainer = BudgetTrainer(plans, CONFIGURATION, FOLD, described, torch.device("cpu"))
    trainer.budget = seconds
    state = Path(trainer.output_folder, BUDGET)
    final = Path(trainer.output_folder, FINAL)
    if state.is_file():
        kept = json.loads(state.read_text(encoding="utf-8"))
        trainer.spent, trainer.iterations = kept["spent"], kept["iterations"]
        if not final.is_file():
            trainer.load_checkpoint(str(Path(trainer.output_folder, LATEST)))
    if not final.is_file():
        trainer.run_training()
    chosen = plans["configurations"][CONFIGURATION]
    network = torch.load(final, map_location="cpu", weights_only=False)["network_weights"]
    sizes = {tensor.data_ptr(): tensor.numel() for tensor in network.values()}  # some stand there under several names
    return {
        "processor_minutes": trainer.spent / 60,
        "steps": trainer.iterations,
        "batch_size": chosen["batch_size"],
        "patch_size": chosen["patch_size"],
        "architecture": chosen["architecture"],
        "parameters": sum(sizes.values()),
        "model_folder": str(Path(trainer.output_folder).parent),
    }


def load(predictor: nnUNetPredictor, folder: Path) -> None:
    """Give a predictor what a training has left.

    Its own loader looks for the trainer by importing every trainer that nnU-Net has. One of them needs timm, which
    cannot be imported where PyTorch and torchvision are of different builds, a common state of things without a GPU.
    """
    described = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    plans = PlansManager(json.loads((folder / "plans.json").read_text(encoding="utf-8")))
    configuration = plans.get_configuration(CONFIGURATION)
    checkpoint = torch.load(folder / f"fold_{FOLD}" / FINAL, map_location="cpu", weights_only=False)
    channels = determine_num_input_channels(plans, configuration, described)
    classes = plans.get_label_manager(described).num_segmentation_heads
    network = BudgetTrainer.build_network_architecture(
        plans, configuration, channels, classes, enable_deep_supervision=False
    )
    weights, mirrored = checkpoint["network_weights"], checkpoint["inference_allowed_mirroring_axes"]
    network.load_state_dict(weights)
    predictor.manual_initialization(network, plans, configuration, [weights], described, "BudgetTrainer", mirrored)


def predict(model_folder: str, images: Path, output: Path, mirroring: bool) -> dict:
    """Predict every image of a folder one after the other, and return the processor seconds that one took."""
    predictor = nnUNetPredictor(
        use_mirroring=mirroring, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    load(predictor, Path(model_folder))
    files = sorted(images.glob("*_0000.nii.gz"))
    started, wall = time.process_time(), time.perf_counter()
    predictor.predict_from_files_sequential(str(images), str(output))
    seconds, elapsed = time.process_time() - started, time.perf_counter() - wall
    return {"cases": len(files), "processor_seconds": seconds / len(files), "seconds": elapsed / len(files)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="JSON file of what was measured")
    programs = parser.add_subparsers(dest="program", required=True)
    training = programs.add_parser("train")
    training.add_argument("dataset")
    training.add_argument("seconds", type=float)
    training.add_argument("seed", type=int)
    predicting = programs.add_parser("predict")
    predicting.add_argument("model_folder")
    predicting.add_argument("images", type=Path)
    predicting.add_argument("output", type=Path)
    predicting.add_argument("--mirroring", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)  # nnU-Net's own programs take all processors for inference and training on a CPU
    if given.program == "train":
        found = train(given.dataset, given.seconds, given.seed)
        found["versions"] = {name: version(name) for name in PACKAGES}
    else:
        found = predict(given.model_folder, given.images, given.output, given.mirroring)
    given.result.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
