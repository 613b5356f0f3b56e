# SPDX-License-Identifier: Apache-2.0
"""Pictures of the same few validation cases, epoch after epoch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter

from bundle.pyraseg.core import process_rank, replacing
from bundle.pyraseg.figures import draw


class Previews:
    """Draw the first cases of every validation with truth and prediction, as files and into TensorBoard.

    Attach it to the evaluator. Files are named after the epoch and the number of the case, since the names of cases may
    be those of patients: `previews/epoch_0004_case_1.png`. Of several processes the first one draws cases of its own.

    Args:
        output_dir: of the run.
        cases: number of cases to draw.
        class_names: names of all classes, background first.
        windows: as for `Windowd`, the first of which shows the image; None where it needs none.
    """

    def __init__(
        self, output_dir: str | Path, *, cases: int, class_names: Sequence[str], windows: Sequence[Any] | None
    ) -> None:
        self.output_dir = Path(output_dir)
        self.cases = cases
        self.class_names = list(class_names)
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
        picture = draw(batch["original"], output["pred"], self.class_names, windows=self.windows, truth=output["truth"])
        with replacing(self.output_dir / "previews" / f"epoch_{epoch:04d}_case_{case}.png") as temporary:
            picture.save(temporary, format="PNG")
        with SummaryWriter(str(self.output_dir / "tensorboard")) as writer:
            writer.add_image(f"case_{case}", np.asarray(picture), epoch, dataformats="HWC")
