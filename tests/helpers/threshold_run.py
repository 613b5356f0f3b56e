# SPDX-License-Identifier: Apache-2.0
"""A training on MONAI's own engines whose scores are known beforehand."""

from pathlib import Path

import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, from_engine
from monai.transforms import AsDiscreted
from torch import nn
from torch.utils.data import DataLoader

from bundle.pyraseg.core.settings import ModelSettings
from bundle.pyraseg.evaluation.scores import CaseOverlap
from bundle.pyraseg.training.epoch_log import EpochLog
from bundle.pyraseg.training.resume import Checkpoints
from bundle.pyraseg.training.stages import StagePlan
from bundle.pyraseg.training.validation import EarlyStopping, ValidationHandler

CLASSES = ["background", "lesion"]
SETTINGS = ModelSettings(
    {"class_names": CLASSES, "ResampleSlicesd.spacing": 2.5},
    {"class_names": "class_names", "ResampleSlicesd.spacing": "spacing"},
)


class Threshold(nn.Module):
    """Classify a pixel as lesion where it is smaller than the only weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([image - self.weight, self.weight - image], dim=1)


class ThresholdRun:
    """Train for some epochs, in each of which the weight becomes the number of the epoch n.

    Of a row of pixels 0.5, 1.5 ... 9.5, the first 3 are lesion and the first n are predicted: Dice is
    2 min(n, 3) / (n + 3), IoU min(n, 3) / max(n, 3). A second case has pixels 4 to 13 and no lesion: a false alarm from
    epoch 5 on. The loss of iteration i of 3 is n + i / 10. At the start of epoch `fails_in` the training dies.
    """

    def __init__(
        self,
        output_dir: Path,
        *,
        epochs: int,
        interval: int | None,
        resume: bool = False,
        record: dict | None = None,
        fails_in: int | None = None,
        patience: int | None = None,
        patience_in_first: int | None = None,
    ) -> None:
        self.output_dir = output_dir
        self.fails_in = fails_in
        self.network = Threshold()
        row = torch.arange(10.0)[None, None]
        cases = [{"image": row + 0.5, "label": (row < 3).float()}, {"image": row + 4, "label": torch.zeros_like(row)}]
        metric = IgniteMetricHandler(
            metric_fn=CaseOverlap(CLASSES, cases=cases),
            output_transform=from_engine(["pred", "label"]),
            save_details=True,
        )
        self.evaluator = SupervisedEvaluator(
            device="cpu",
            val_data_loader=DataLoader(cases),
            network=self.network,
            postprocessing=AsDiscreted("pred", argmax=True),
            key_val_metric={"val_mean_dice": metric},
        )
        group = {"name": "head", "params": list(self.network.parameters()), "lr": 0.1}
        plan = StagePlan(
            [
                {
                    "name": "first",
                    "epoch_fraction": 0.5,
                    "learning_rates": {"head": 0.1},
                    "patience": patience_in_first,
                },
                {"name": "second", "epoch_fraction": 0.5, "learning_rates": {"head": 0.1}},
            ]
        )
        optimizer = torch.optim.SGD([group])
        early_stopping = EarlyStopping(plan, evaluator=self.evaluator, patience=patience)
        self.plan, self.stopping = plan, early_stopping
        log = EpochLog(output_dir, plan=plan, optimizer=optimizer, evaluator=self.evaluator, class_names=CLASSES)
        self.trainer = SupervisedTrainer(
            device="cpu",
            max_epochs=epochs,
            train_data_loader=[0, 1, 2],
            network=self.network,
            optimizer=optimizer,
            loss_function=nn.MSELoss(),
            iteration_update=self.iteration,
            decollate=False,
            train_handlers=[
                *([ValidationHandler(interval, self.evaluator, plan=plan)] if interval else []),
                early_stopping,
                log,
                Checkpoints(
                    output_dir,
                    network=self.network,
                    kept=self.network,
                    optimizer=optimizer,
                    evaluator=self.evaluator,
                    settings=SETTINGS,
                    others={"early_stopping": early_stopping, "log": log},
                    record=record,
                    resume=resume,
                ),
            ],
        )

    def iteration(self, engine: SupervisedTrainer, batch: int) -> dict[str, torch.Tensor]:
        if engine.state.epoch == self.fails_in:
            raise ZeroDivisionError
        nn.init.constant_(self.network.weight, engine.state.epoch)
        return {"loss": torch.tensor(engine.state.epoch + batch / 10)}

    def run(self) -> "ThresholdRun":
        self.trainer.run()
        return self
