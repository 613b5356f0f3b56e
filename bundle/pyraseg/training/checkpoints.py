# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole or absent, and the one step that changes the bundle's model."""

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.files import replacing

logger = logging.getLogger(__name__)


def save_atomically(content: Any, path: str | Path) -> None:
    """Write `content` with `torch.save`; `path` holds the old content or the whole new one at every moment."""
    with replacing(path) as temporary:
        torch.save(content, temporary)


class SaveBestAndLast:
    """Keep the weights of the best validated epoch and those of the last, as plain state dicts.

    Attach it to the trainer behind the handler that validates. `best.pt` is that of the evaluator's key metric.

    Args:
        output_dir: folder of `best.pt` and `last.pt`.
        network: whose weights are kept.
        evaluator: engine that validated.
    """

    def __init__(self, output_dir: str | Path, *, network: nn.Module, evaluator: Engine) -> None:
        self.output_dir = Path(output_dir)
        self.network = network
        self.evaluator = evaluator

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._tell)

    def __call__(self, engine: Engine) -> None:
        save_atomically(self.network.state_dict(), self.output_dir / "last.pt")
        if self.evaluator.state.best_metric_epoch == engine.state.epoch:
            save_atomically(self.network.state_dict(), self.output_dir / "best.pt")

    def _tell(self, engine: Engine) -> None:
        state = self.evaluator.state
        logger.info(
            "Best validation mean Dice %.3f at epoch %d: %s",
            state.best_metric,
            state.best_metric_epoch,
            self.output_dir / "best.pt",
        )


def promote(weights: str | Path, model: str | Path) -> None:
    """Make `weights` the bundle's model, in one rename, and keep the model that it replaces.

    The replaced model goes to `replaced/` beside `model`, under a name made of its content's hash: it stays selectable,
    and a folder listing shows one model only.

    Raises:
        PyrasegError: there are no weights at that path.
    """
    weights, model = Path(weights), Path(model)
    if not weights.is_file():
        raise PyrasegError(f"There are no weights at {weights} to promote: train with validation first.")
    if model.is_file():
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        kept = model.parent / "replaced" / f"{model.stem}-{digest[:12]}{model.suffix}"
        if not kept.is_file():
            with replacing(kept) as temporary:
                shutil.copyfile(model, temporary)
            logger.info("The model before is kept as %s", kept)
    with replacing(model) as temporary:
        shutil.copyfile(weights, temporary)
    logger.info("The model of the bundle is now %s", model)
