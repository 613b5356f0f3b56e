# SPDX-License-Identifier: Apache-2.0
"""nnU-Net's trainer with one thing changed: its length, a budget of processor seconds.

As it comes, it makes 1000 epochs of 250 iterations, on a processor weeks. Here the polynomial schedule falls
with the share of the budget that is spent, so that it is complete when the budget is. Augmentation, loss, optimizer,
first rate, batch, patch and network are nnU-Net's.
"""

import json
import time
from pathlib import Path

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

#: Where a training that was stopped goes on, and what it had spent.
LATEST, BUDGET = "checkpoint_latest.pth", "budget.json"


class BudgetTrainer(nnUNetTrainer):
    """nnU-Net's trainer with a budget of processor seconds, that of its training and validation batches.

    Epochs are a tenth as long as nnU-Net's, with as large a share of validation batches. They are what a checkpoint is
    made after, and no more: all batches are drawn at random.
    """

    # nnU-Net's trainer reads the names of the arguments off this signature.
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = 25
        self.num_val_iterations_per_epoch = 5
        self.save_every = 1  # epochs; `on_epoch_end` saves
        self.budget = 0.0
        self.spent = 0.0
        self.iterations = 0

    def configure_optimizers(self):
        optimizer, _ = super().configure_optimizers()
        return optimizer, BudgetSchedule(self, optimizer)

    def run_training(self) -> None:
        self.on_train_start()
        self.logger.plot_progress_png = lambda folder: None  # a chart an epoch takes longer than an iteration
        while self.spent < self.budget:
            self.on_epoch_start()
            self.on_train_epoch_start()
            self.on_train_epoch_end(self._batches())
            with torch.no_grad():
                self.on_validation_epoch_start()
                self.on_validation_epoch_end(self._validation_batches())
            self.on_epoch_end()
            state = {"spent": self.spent, "iterations": self.iterations, "epochs": self.current_epoch}
            Path(self.output_folder, BUDGET).write_text(json.dumps(state), encoding="utf-8")
            print(f"{self.spent / 60:.2f} of {self.budget / 60:.2f} minutes, {self.iterations} iterations", flush=True)
        self.on_train_end()

    def _batches(self) -> list[dict]:
        outputs: list[dict] = []
        while len(outputs) < self.num_iterations_per_epoch and self.spent < self.budget:
            started = time.process_time()
            self.lr_scheduler.step()
            outputs.append(self.train_step(next(self.dataloader_train)))
            self.iterations += 1
            self.spent += time.process_time() - started
        return outputs

    def _validation_batches(self) -> list[dict]:
        outputs: list[dict] = []
        while not outputs or (len(outputs) < self.num_val_iterations_per_epoch and self.spent < self.budget):
            started = time.process_time()
            outputs.append(self.validation_step(next(self.dataloader_val)))
            self.spent += time.process_time() - started
        return outputs


class BudgetSchedule(PolyLRScheduler):
    """nnU-Net's schedule, with the seconds of the budget for steps."""

    def __init__(self, trainer: BudgetTrainer, optimizer: torch.optim.Optimizer) -> None:
        self.trainer = trainer
        super().__init__(optimizer, trainer.initial_lr, 1)

    def step(self, current_step=None) -> None:
        self.max_steps = max(self.trainer.budget, 1e-9)
        super().step(min(self.trainer.spent, self.max_steps))
