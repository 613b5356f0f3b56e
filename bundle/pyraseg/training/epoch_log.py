# SPDX-License-Identifier: Apache-2.0
"""What a run tells while it runs: a progress bar, a line an epoch, a CSV file, TensorBoard, pictures of a few cases."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from ignite.metrics import Average
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from bundle.pyraseg.core import Structures, process_rank, replacing, write_csv
from bundle.pyraseg.evaluation import mean_dice, summarize
from bundle.pyraseg.figures import draw
from bundle.pyraseg.training.stages import StagePlan
from bundle.pyraseg.transforms import only_annotated

logger = logging.getLogger(__name__)

#: Name of the mean loss of an epoch in the trainer's metrics.
LOSS = "train_loss"


class EpochLog:
    """Gather the figures of every epoch and tell them four ways.

    Attach it to the trainer behind the handler that validates, so that it finds the epoch's scores. An epoch without
    validation has a loss and no scores. Of several processes the first one tells; the loss is the mean over all.

    Args:
        output_dir: folder of `log.csv` and `tensorboard/`.
        plan: names the stage.
        optimizer: its groups' names and rates are logged.
        evaluator: engine whose `metric_details` hold the counts of `CaseOverlap`.
        class_names: names of all classes, background first.
        regions: the classes of each region where these are trained, see `core.Structures`; `metric_details` are theirs.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        plan: StagePlan,
        optimizer: Optimizer,
        evaluator: Engine,
        class_names: Sequence[str],
        regions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.plan = plan
        self.optimizer = optimizer
        self.evaluator = evaluator
        self.names = Structures(class_names, regions).names
        self._started = 0.0
        self._rows: list[dict[str, float | str]] = []
        self._writer: SummaryWriter | None = None

    def attach(self, engine: Engine) -> None:
        Average(output_transform=_loss).attach(engine, LOSS)
        if process_rank() > 0:
            return
        ProgressBar(desc="Epoch", disable=None).attach(engine, output_transform=lambda output: {"loss": _loss(output)})
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def state_dict(self) -> dict[str, list]:
        """Return the rows of the epochs so far."""
        return {"rows": self._rows}

    def load_state_dict(self, state: dict[str, list]) -> None:
        """Go on behind the rows of a `state_dict`: what was logged after them is of an epoch that is run again."""
        self._rows = list(state["rows"])

    def _start(self, engine: Engine) -> None:
        self._started = time.perf_counter()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def __call__(self, engine: Engine) -> None:
        row = self._row(engine)
        self._rows.append(row)
        logger.info(describe(row, max_epochs=engine.state.max_epochs))
        self._write_csv()
        if self._writer is None:
            # Hides what an earlier run in this folder logged of the same epochs.
            self._writer = SummaryWriter(str(self.output_dir / "tensorboard"), purge_step=row["epoch"])
        for name, value in row.items():
            if name not in ("epoch", "stage"):
                self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()

    def _row(self, engine: Engine) -> dict[str, float | str]:
        row: dict[str, float | str] = {"epoch": engine.state.epoch}
        row["stage"] = self.plan.at(engine.state.epoch, engine.state.max_epochs).name
        row |= {f"rate/{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        row["loss"] = engine.state.metrics[LOSS]
        if self.evaluator.state.epoch == engine.state.epoch:  # MONAI's evaluator carries the trainer's epoch
            (counts,) = self.evaluator.state.metric_details.values()
            scores = summarize(counts, self.names)
            row["dice"] = mean_dice(scores)
            row |= {f"dice/{score.name}": score.dice for score in scores}
            row |= {f"iou/{score.name}": score.iou for score in scores}
            row |= {f"false_alarms/{score.name}": score.false_alarms for score in scores if score.absent}
        row["seconds"] = time.perf_counter() - self._started
        if torch.cuda.is_available():
            row["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
        return row

    def _write_csv(self) -> None:
        # Scores come with the first validation, so the columns may grow: the file is written whole.
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        write_csv(self.output_dir / "log.csv", columns, self._rows, digits=None)

    def _close(self, engine: Engine) -> None:
        if self._writer is not None:
            self._writer.close()


def _loss(output: dict | list[dict]) -> float:
    """Return the loss of a batch from the trainer's output, decollated or not."""
    return (output[0] if isinstance(output, list) else output)["loss"]


def describe(row: dict[str, float | str], *, max_epochs: int) -> str:
    """Return an epoch's figures as one line."""

    def named(kind: str) -> dict[str, Any]:
        return {name.partition("/")[2]: value for name, value in row.items() if name.startswith(f"{kind}/")}

    rates = " ".join(f"{name} {rate:.0e}" for name, rate in named("rate").items() if rate)
    parts = [f"epoch {row['epoch']}/{max_epochs} {row['stage']}", f"rates {rates}", f"loss {row['loss']:.3f}"]
    if "dice" in row:
        classes = " ".join(f"{name} {dice:.2f}" for name, dice in named("dice").items())
        parts.append(f"Dice {row['dice']:.3f} ({classes})")
    if sum(named("false_alarms").values()):
        parts.append("false alarms " + " ".join(f"{name} {n}" for name, n in named("false_alarms").items() if n))
    parts.append(f"{row['seconds']:.0f} s")
    if "gpu_memory_mb" in row:
        parts.append(f"GPU {row['gpu_memory_mb']:.0f} MB")
    return " | ".join(parts)


class Previews:
    """Draw the first cases of every validation with truth and prediction, as files and into TensorBoard.

    Attach it to the evaluator. Files are named after the epoch and the number of the case, since the names of cases may
    be those of patients: `previews/epoch_0004_case_1.png`. Of several processes the first one draws cases of its own.

    Args:
        output_dir: of the run.
        cases: number of cases to draw.
        class_names: names of all classes, background first.
        windows: as for `Windowd`, the first of which shows the image; None where it needs none.
        regions: the classes of each region where these are trained, see `core.Structures`.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        cases: int,
        class_names: Sequence[str],
        windows: Sequence[Any] | None,
        regions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.cases = cases
        self.structures, self.regions = Structures(class_names, regions), regions
        self.windows = windows

    def attach(self, engine: Engine) -> None:
        if process_rank() > 0:
            return
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        # MONAI's evaluator counts on the trainer's epoch and starts its iterations at 1; one case an iteration.
        epoch, case = engine.state.epoch, engine.state.iteration
        if case > self.cases:
            return
        (output,) = engine.state.output
        (batch,) = engine.state.batch
        prediction = only_annotated(
            output["pred"], batch.get("annotated"), self.structures
        )  # of others nobody knows whether they are right
        picture = draw(
            batch["original"],
            prediction,
            self.structures.class_names,
            windows=self.windows,
            truth=output["truth"],
            regions=self.regions,
        )
        with replacing(self.output_dir / "previews" / f"epoch_{epoch:04d}_case_{case}.png") as temporary:
            picture.save(temporary, format="PNG")
        with SummaryWriter(str(self.output_dir / "tensorboard")) as writer:
            writer.add_image(f"case_{case}", np.asarray(picture), epoch, dataformats="HWC")
