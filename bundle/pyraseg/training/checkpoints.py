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

from bundle.pyraseg import processes
from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.files import replacing

logger = logging.getLogger(__name__)


def save_atomically(content: Any, path: str | Path) -> None:
    """Write `content` with `torch.save`; `path` holds the old content or the whole new one at every moment."""
    with replacing(path) as temporary:
        torch.save(content, temporary)


class SaveBestAndLast:
    """Keep the weights of the best validated epoch and those of the last, as plain state dicts.

    Attach it to the trainer behind the handler that validates. `best.pt` is that of the evaluator's key metric; one
    that an earlier run left in the folder goes when a new run starts, so that it cannot be taken for this run's. Of
    several processes the first one writes.

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
        if processes.rank() > 0:
            return
        engine.add_event_handler(Events.STARTED, self._clear)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._tell)

    def _clear(self, engine: Engine) -> None:
        if engine.state.epoch == 0:
            (self.output_dir / "best.pt").unlink(missing_ok=True)

    def __call__(self, engine: Engine) -> None:
        save_atomically(self.network.state_dict(), self.output_dir / "last.pt")
        if self.evaluator.state.best_metric_epoch == engine.state.epoch:
            save_atomically(self.network.state_dict(), self.output_dir / "best.pt")

    def _tell(self, engine: Engine) -> None:
        state = self.evaluator.state
        if state.best_metric_epoch < 0:
            logger.warning("No epoch was validated: there are no best weights. Let val_interval be at most epochs.")
            return
        logger.info(
            "Best validation mean Dice %.3f at epoch %d: %s",
            state.best_metric,
            state.best_metric_epoch,
            self.output_dir / "best.pt",
        )


def load_model(network: nn.Module, path: str | Path, *, remedy: str) -> nn.Module:
    """Load a plain state dict into a network and return the network.

    Args:
        network: the definition that the weights belong to.
        path: file written by `torch.save`; it is read without running code.
        remedy: what a user does to get a model, for the message where there is none.

    Raises:
        PyrasegError: there is no file, or it belongs to another network.
    """
    path = Path(path)
    if not path.is_file():
        raise PyrasegError(f"There is no trained model at {path}. {remedy}")
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a file that is no state dict makes torch raise nearly every type there is
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise PyrasegError(
            f"The model {path} does not fit the network of this config ({reason}). "
            "Use the config, with the encoder and the classes, that the model was trained with."
        ) from error
    return network


def promote(weights: str | Path, model: str | Path) -> None:
    """Make `weights` the bundle's model, in one rename, and keep the model that it replaces.

    The replaced model goes to `replaced/` beside `model`, under a name made of its content's hash: it stays selectable,
    and a folder listing shows one model only. Of several processes the first one does it.

    Raises:
        PyrasegError: there are no weights at that path.
    """
    if processes.rank() > 0:
        return
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
