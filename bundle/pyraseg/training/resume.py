# SPDX-License-Identifier: Apache-2.0
"""Go on with a run that died, as if it had not."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.optim import Optimizer

from bundle.pyraseg.core import (
    ModelSettings,
    PyrasegError,
    at_failure,
    from_first,
    hold,
    process_rank,
    release,
    require_replaceable,
    write_json,
)
from bundle.pyraseg.networks import require_finite
from bundle.pyraseg.training.checkpoints import WORK, save_atomically, save_model

logger = logging.getLogger(__name__)

#: What a resumed run must share with the one that died.
FIXED = ("config", "data")


class Stateful(Protocol):
    """What has a state that a resumed run takes over."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict, /) -> Any: ...


class Checkpoints:
    """Write all that a run is after every epoch, and start from the last whole file where a run is to be resumed.

    A checkpoint holds the weights, the optimizer, the epoch, the best score, the gradient scaler of mixed precision and
    the states of `others`, as tensors and plain values that are read without running code. Random states are not among
    them: draws, augmentation and dropout are functions of seed and epoch (`StagedSampler`, `SeedEpochs`). The last two
    files stay, so that one that a disk has spoilt costs an epoch.

    Beside them, `best.pt` holds the weights of the best validated epoch, see `save_model`. Of several processes the
    first one reads and writes; all start from what it has read.

    Attach it to the trainer last: whatever else an epoch writes is then on disk before the checkpoint says so, and an
    epoch that is repeated writes the same again.

    Args:
        output_dir: folder of `best.pt` and of `checkpoints/` with `epoch_0001.pt`, `epoch_0002.pt` ...
        network: that is trained.
        kept: whose weights are validated and become `best.pt`: the network, or the average of its weights.
        optimizer: of the network.
        evaluator: engine that validates; it knows the best score.
        settings: what the network is trained with; they go with `best.pt`.
        others: more that has a state, by name.
        record: what the run is made of, see `workflow.record.run_record`; it is written as `run.json`. A resumed run
            must have the same `config` and `data`; other `versions` or another `revision` are told.
        resume: whether to go on with the run in `output_dir`; where it holds none, it begins.

    Raises:
        PyrasegError: `output_dir` holds an unfinished run and `resume` is false, or a run of another kind and it is
            true; or, after an epoch, weights are NaN or infinite. Nothing is written then.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        network: nn.Module,
        kept: nn.Module,
        optimizer: Optimizer,
        evaluator: Engine,
        settings: ModelSettings,
        others: Mapping[str, Stateful] | None = None,
        record: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        self.best = Path(output_dir) / "best.pt"
        self.folder = Path(output_dir) / "checkpoints"
        self.network = network
        self.kept = kept
        self.settings = settings
        self.parts: dict[str, Stateful] = {"network": network, "optimizer": optimizer, **(others or {})}
        self.evaluator = evaluator
        self.record = dict(record or {})
        self.resume = resume

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._tell)
        at_failure(engine, lambda: release(self.folder.parent, WORK))

    def files(self) -> list[Path]:
        """Return the checkpoints, the newest first."""
        found = [path for path in self.folder.glob("epoch_*.pt") if re.fullmatch(r"epoch_\d+\.pt", path.name)]
        return sorted(found, reverse=True)

    def newest(self) -> dict | None:
        """Return the content of the newest checkpoint that can be read, or None where there is none at all.

        Raises:
            PyrasegError: there are files and none of them can be read.
        """
        files = self.files()
        for path in files:
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # a spoilt file makes torch raise nearly every type there is
                logger.warning(
                    "The checkpoint %s cannot be read (%s): trying the previous one.", path, type(error).__name__
                )
        if files:
            raise PyrasegError(
                f"None of the checkpoints in {self.folder} can be read. Delete the folder to start again."
            )
        return None

    def __call__(self, engine: Engine) -> None:
        if process_rank() > 0:
            return
        for module in (self.network, self.kept):
            require_finite(module.state_dict(), f"The training, after epoch {engine.state.epoch}")
        if self.evaluator.state.best_metric_epoch == engine.state.epoch:
            save_model(self.kept.state_dict(), self.best, settings=self.settings)
        over = engine.should_terminate or engine.state.epoch >= engine.state.max_epochs
        scaler = getattr(engine, "scaler", None)
        content = {
            "over": bool(over),
            "trainer": dict(engine.state_dict()),
            "best": [self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch],
            "scaler": scaler.state_dict() if scaler is not None else {},
            "record": self.record,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }
        save_atomically(content, self.folder / f"epoch_{engine.state.epoch:04d}.pt")
        for path in self.files()[2:]:
            path.unlink()

    def check(self) -> dict | None:
        """Return the checkpoint that the run goes on from, or None where it begins.

        It is asked when the run starts; a config asks it before data are prepared as well. From here on the folder is
        held, until the model is promoted, the run fails or the process ends. Where this raises, it is free.

        Raises:
            PyrasegError: another training is at work in the folder, or it holds a run that this one would destroy, or
                that it cannot go on with.
        """
        self._hold()
        try:
            return self._checked()
        except BaseException:
            release(self.folder.parent, WORK)
            raise

    def _checked(self) -> dict | None:
        content = from_first(self.newest)
        if content is None:
            return None
        if not self.resume:
            if content["over"]:
                return None
            done, length = content["trainer"]["iteration"], content["trainer"]["epoch_length"]
            raise PyrasegError(
                f"{self.folder.parent} holds a run that ended after epoch {done // length} of "
                f"{content['trainer']['max_epochs']}. Add --resume true to continue it, or give another output_dir. "
                f"To discard it, delete {self.folder}."
            )
        before = content["record"]
        changes = [line for key in FIXED for line in differences(before.get(key, {}), self.record.get(key, {}), key)]
        if changes:
            shown = "\n  ".join(changes[:10]) + ("\n  ..." if len(changes) > 10 else "")
            raise PyrasegError(
                f"The run in {self.folder.parent} cannot be resumed, because these have changed:\n  {shown}\n"
                "Undo the changes, or start a new run in another output_dir."
            )
        return content

    def _hold(self) -> None:
        from_first(lambda: hold(self.folder.parent, WORK))

    def _start(self, engine: Engine) -> None:
        if engine.state.epoch > 0:  # the same engine runs on, as a federated client does round after round
            self._hold()
            return
        content = self.check()
        if content is not None:
            self._restore(engine, content)
        elif self.resume:
            logger.info("There is no checkpoint in %s yet: the run starts from the beginning.", self.folder)
        if process_rank() == 0:
            self._prepare_folder(anew=content is None)

    def _prepare_folder(self, *, anew: bool) -> None:
        """Remove what is no part of this run, and write what it is made of."""
        if anew:
            for path in [*self.files(), self.best]:  # an earlier run's must not be taken for this one's
                require_replaceable(path)
                path.unlink(missing_ok=True)
        for path in self.folder.parent.rglob(".*.tmp"):  # what a killed run had not finished writing
            path.unlink()
        write_json(self.folder.parent / "run.json", self.record)

    def _restore(self, engine: Engine, content: dict) -> None:
        for key in ("versions", "revision"):
            for line in differences(content["record"].get(key), self.record.get(key), key):
                logger.warning(
                    "The run was started with other software versions: %s. Its weights may differ by rounding.", line
                )
        require_finite(content["parts"]["network"], f"The newest checkpoint in {self.folder}")
        engine.load_state_dict(content["trainer"])
        self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch = content["best"]
        if content["scaler"]:
            engine.scaler.load_state_dict(content["scaler"])
        for name, part in self.parts.items():
            part.load_state_dict(content["parts"][name])
        if content["over"]:
            logger.info("The run in %s is finished: there is nothing to resume.", self.folder.parent)
            engine.terminate()
        else:
            logger.info("Resuming after epoch %d of %d.", engine.state.epoch, engine.state.max_epochs)

    def _tell(self, engine: Engine) -> None:
        state = self.evaluator.state
        if state.best_metric_epoch < 0:
            logger.warning("No epoch was validated: there are no best weights. Let val_interval be at most epochs.")
        elif state.best_metric_epoch == 0:  # who calls the trainer has validated what it starts from
            logger.info("No epoch was better than the start, mean Dice %.3f: no best.pt is written.", state.best_metric)
        else:
            where = f"Best validation mean Dice {state.best_metric:.3f} at epoch {state.best_metric_epoch}"
            logger.info("%s: %s", where, self.best)


def differences(before: Any, now: Any, place: str = "") -> list[str]:
    """Return a line for every value that two nested mappings do not share."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = list(dict.fromkeys([*before, *now]))
        nested = ((before.get(key), now.get(key), f"{place}: {key}" if place else str(key)) for key in keys)
        return [line for one, other, where in nested for line in differences(one, other, where)]
    if before == now:
        return []
    return [f"{place}: {_short(before)} then, {_short(now)} now"]


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
