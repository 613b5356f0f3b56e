# SPDX-License-Identifier: Apache-2.0
"""Stages of a training: which parts learn how fast, on how much data, under how strong an augmentation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import ceil, cos, pi

from ignite.engine import Engine, Events
from torch.optim import Optimizer

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks import PartwiseNetwork
from bundle.pyraseg.training.samplers import StagedSampler

#: How the rates fall within a stage, from 1 to 0, by the share of the stage that has passed.
SCHEDULES = {
    "cosine": lambda passed: (1 + cos(pi * passed)) / 2,
    "poly": lambda passed: (1 - passed) ** 0.9,  # the power of Zhao et al., CVPR 2017
}

#: Fields of a stage that are numbers.
SHARES = ("epoch_fraction", "patient_fraction", "augmentation_strength", "warm_up", "final_lr_factor", "layer_decay")


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: shown in the log.
        epoch_fraction: share of the training's epochs.
        learning_rates: one for each part of the network that learns; the others are frozen. A finer part
            (`encoder.stages.3`) takes the rate of the finest name that holds it.
        patient_fraction: share of the training patients; smaller shares lie inside larger ones.
        augmentation_strength: of the augmentation, 0 to 1.
        warm_up: share of the stage in which the rates rise from 0, evenly.
        schedule: how they fall afterwards, "cosine" or "poly".
        final_lr_factor: share of its rates that the stage ends with; 1 keeps them.
        layer_decay: factor between the rates of neighboring layers of the encoder, from the deepest, which keeps the
            rate of the part, to the stem. 1 gives all of them the same.
        patience: validations in a row without a better score after which the next stage begins; None stays to the end.
        freeze_batch_norm: parts whose batch-norm statistics stand still though they learn; see `PartwiseNetwork`.
    """

    name: str
    epoch_fraction: float
    learning_rates: Mapping[str, float]
    patient_fraction: float = 1.0
    augmentation_strength: float = 1.0
    warm_up: float = 0.0
    schedule: str = "cosine"
    final_lr_factor: float = 1.0
    layer_decay: float = 1.0
    patience: int | None = None
    freeze_batch_norm: Sequence[str] = ()

    def __post_init__(self) -> None:
        whole = {} if self.patience is None else {"patience": self.patience}
        shares = {name: getattr(self, name) for name in SHARES}
        for name, value in {**self.learning_rates, **shares, **whole}.items():
            if isinstance(value, bool) or not isinstance(value, int if name in whole else int | float):
                kind = "a whole number" if name in whole else "a number"
                raise PyrasegError(f"Stage {self.name!r}: `{name}` takes {kind}, not {value!r}.")
        if not self.learning_rates or min(self.learning_rates.values()) <= 0:
            raise PyrasegError(f"Stage {self.name!r}: `learning_rates` must give a positive rate to at least one part.")
        if not (
            0 < self.epoch_fraction <= 1 and 0 < self.patient_fraction <= 1 and 0 <= self.augmentation_strength <= 1
        ):
            raise PyrasegError(
                f"Stage {self.name!r}: `epoch_fraction` and `patient_fraction` lie in (0, 1], `augmentation_strength` "
                "in [0, 1]."
            )
        if not 0 <= self.final_lr_factor <= 1 or not 0 <= self.warm_up < 1 or not 0 < self.layer_decay <= 1:
            raise PyrasegError(
                f"Stage {self.name!r}: `final_lr_factor` lies in [0, 1], `warm_up` in [0, 1), `layer_decay` in (0, "
                f"1]; they are {self.final_lr_factor}, {self.warm_up} and {self.layer_decay}."
            )
        if self.schedule not in SCHEDULES:
            raise PyrasegError(f"Stage {self.name!r}: `schedule` is one of {list(SCHEDULES)}, not {self.schedule!r}.")
        if self.patience is not None and self.patience < 1:
            raise PyrasegError(f"Stage {self.name!r}: `patience` is a number of validations, 1 or more.")

    def share_of_rates(self, passed: float) -> float:
        """Return the factor of the rates when a share of the stage has passed."""
        if passed < self.warm_up:
            return passed / self.warm_up
        fallen = SCHEDULES[self.schedule]((passed - self.warm_up) / (1 - self.warm_up))
        return self.final_lr_factor + (1 - self.final_lr_factor) * fallen


class StagePlan:
    """The stages in order. Which one rules is a function of the epoch alone, so that a resumed run finds it again.

    Epochs are the trainer's, counted from 1. A stage may be cut short, see `skip`; `skipped` says by how much in all.

    Args:
        stages: one mapping a stage, with the fields of `Stage`; their `epoch_fraction` sum to 1.
        epochs: length of the whole training where the trainer does not know it: in federated learning its `max_epochs`
            is the end of the current round.

    Raises:
        PyrasegError: an unknown or missing field, shares that do not sum to 1, or a stage's `patience` in a federation.

    >>> plan = StagePlan([
    ...     {"name": "new parts", "epoch_fraction": 0.25, "learning_rates": {"head": 2e-3}},
    ...     {"name": "all parts", "epoch_fraction": 0.75, "learning_rates": {"encoder": 1e-3, "head": 2e-3}},
    ... ])
    >>> [sorted(plan.learning_rates(epoch, max_epochs=4)) for epoch in (1, 2)]
    [['head'], ['encoder', 'head']]
    """

    def __init__(self, stages: Sequence[Mapping], *, epochs: int | None = None) -> None:
        self.epochs = epochs
        #: Epochs that stages without progress have left out; the plan is that far ahead of the trainer.
        self.skipped = 0
        known = [field.name for field in fields(Stage)]
        for stage in stages:
            needed = {"name", "epoch_fraction", "learning_rates"}
            unknown, missing = sorted(set(stage) - set(known)), sorted(needed - set(stage))
            if unknown or missing:
                raise PyrasegError(f"A stage has unknown fields {unknown} and lacks {missing}; its fields are {known}.")
        self.stages = [Stage(**stage) for stage in stages]
        if epochs is not None and any(stage.patience is not None for stage in self.stages):
            raise PyrasegError("In a federation, stages end at all sites together: take `patience` out of them.")
        if abs(sum(stage.epoch_fraction for stage in self.stages) - 1) > 1e-6:
            shares = [stage.epoch_fraction for stage in self.stages]
            raise PyrasegError(f"The stages' `epoch_fraction`, {shares}, do not sum to 1.")

    def parameter_groups(self, network: PartwiseNetwork) -> list[dict]:
        """Return one optimizer group for every part that may get a rate of its own.

        Raises:
            PyrasegError: a stage names a part that the network does not have, or its encoder has no layers to decay.
        """
        finer = [part for stage in self.stages for part in stage.learning_rates]
        if any(stage.layer_decay != 1 for stage in self.stages):
            finer += network.encoder_layers()
        return network.parameter_groups(dict.fromkeys(finer))

    def at(self, epoch: int, max_epochs: int) -> Stage:
        """Return the stage that rules `epoch`: the one in which the epoch's middle lies."""
        return self._locate(epoch + self.skipped, max_epochs)[0]

    def learning_rates(self, epoch: int, max_epochs: int, *, done: float = 0.5) -> dict[str, float]:
        """Return the learning rate of every part that learns when a share of `epoch` is done."""
        stage, before, last = self._locate(epoch + self.skipped, max_epochs)
        passed = (epoch + self.skipped - 1 + done - before) / (last - before)
        return {part: rate * stage.share_of_rates(passed) for part, rate in stage.learning_rates.items()}

    def skip(self, epoch: int, max_epochs: int) -> int:
        """Go on with the next stage behind `epoch`; return how many epochs its own one would still have had."""
        left = self._locate(epoch + self.skipped, max_epochs)[2] - (epoch + self.skipped)
        self.skipped += left
        return left

    def is_over(self, epoch: int, max_epochs: int) -> bool:
        """Return whether nothing of the plan is left behind `epoch`."""
        return epoch + self.skipped >= max_epochs

    def _locate(self, planned: int, max_epochs: int) -> tuple[Stage, int, int]:
        """Return the stage that rules an epoch of the plan, the epoch before its first, and its last one."""
        max_epochs = self.epochs or max_epochs
        share, before, last = 0.0, 0, 0
        for stage in self.stages:
            share += stage.epoch_fraction
            before, last = last, ceil(share * max_epochs - 0.5 - 1e-9)
            if planned <= last:
                break
        return stage, before, max(last, planned)


class StageHandler:
    """Put the stage of every epoch into force when the epoch starts, and its rates at every iteration.

    Sets which parts of the network learn, the rate of each optimizer group (0 where the part is frozen) and the draws
    of the sampler. Groups are matched to parts by their `name`: each takes the rate of the finest part that
    holds it.
    """

    def __init__(
        self, plan: StagePlan, *, network: PartwiseNetwork, optimizer: Optimizer, sampler: StagedSampler
    ) -> None:
        self.plan = plan
        self.network = network
        self.optimizer = optimizer
        self.sampler = sampler
        groups = [group["name"] for group in optimizer.param_groups]
        for stage in plan.stages:
            unknown = sorted(part for part in stage.learning_rates if not any(_holds(part, group) for group in groups))
            if unknown:
                raise PyrasegError(
                    f"Stage {stage.name!r} gives a rate to {unknown}; the network's parts are {network.part_names()} "
                    f"and the optimizer's groups {groups}. Make the groups by `plan.parameter_groups(network)`."
                )
        decays = any(stage.layer_decay != 1 for stage in plan.stages)
        #: How far above the deepest layer of the encoder each group lies.
        self.height = {name: n for n, name in enumerate(reversed(network.encoder_layers()))} if decays else {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)
        engine.add_event_handler(Events.ITERATION_STARTED, self._set_rates)

    def __call__(self, engine: Engine) -> None:
        stage = self.plan.at(engine.state.epoch, engine.state.max_epochs)
        self.network.learn_only(stage.learning_rates, freeze_batch_norm=stage.freeze_batch_norm)
        self.sampler.set_epoch(
            engine.state.epoch,
            patient_fraction=stage.patient_fraction,
            augmentation_strength=stage.augmentation_strength,
        )

    def _set_rates(self, engine: Engine) -> None:
        iteration = (engine.state.iteration - 1) % engine.state.epoch_length
        epoch, max_epochs = engine.state.epoch, engine.state.max_epochs
        decay = self.plan.at(epoch, max_epochs).layer_decay
        rates = self.plan.learning_rates(epoch, max_epochs, done=(iteration + 0.5) / engine.state.epoch_length)
        for group in self.optimizer.param_groups:
            holders = [part for part in rates if _holds(part, group["name"])]
            rate = rates[max(holders, key=len)] if holders else 0.0
            group["lr"] = rate * decay ** self.height.get(group["name"], 0)


def _holds(part: str, finer: str) -> bool:
    """Return whether a part is `finer` or holds it."""
    return f"{finer}.".startswith(f"{part}.")
