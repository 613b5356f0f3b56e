# SPDX-License-Identifier: Apache-2.0
"""Stages of a training: which parts learn how fast, on how much data, under how strong an augmentation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import cos, pi

from ignite.engine import Engine, Events
from torch.optim import Optimizer

from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.networks.parts import PartwiseNetwork
from bundle.pyraseg.training.samplers import StagedSampler


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: shown in the log.
        epochs: share of the training's epochs.
        rates: learning rate of each part of the network that learns; the others are frozen. A finer part
            (`encoder.stages.3`) takes the rate of the finest name that holds it.
        data: share of the training patients; smaller shares lie inside larger ones.
        strength: of the augmentation, 0 to 1.
        falls_to: share of its rates that the stage ends with, reached along half a cosine; 1 keeps them.
    """

    name: str
    epochs: float
    rates: Mapping[str, float]
    data: float = 1.0
    strength: float = 1.0
    falls_to: float = 1.0

    def __post_init__(self) -> None:
        if not self.rates or min(self.rates.values()) <= 0:
            raise PyrasegError(f"Stage {self.name!r}: `rates` must give a positive rate to at least one part.")
        if not 0 < self.data <= 1 or not 0 < self.epochs <= 1 or not 0 <= self.strength <= 1:
            raise PyrasegError(f"Stage {self.name!r}: `epochs` and `data` lie in (0, 1], `strength` in [0, 1].")
        if not 0 <= self.falls_to <= 1:
            raise PyrasegError(f"Stage {self.name!r}: `falls_to` lies in [0, 1], not at {self.falls_to}.")


class StagePlan:
    """The stages in order. Which one rules is a function of the epoch alone, so that a resumed run finds it again.

    Args:
        stages: one mapping a stage, with the fields of `Stage`; their `epochs` sum to 1.
        epochs: length of the whole training where the trainer does not know it: in federated learning its `max_epochs`
            is the end of the current round.

    Raises:
        PyrasegError: an unknown or missing field, or shares that do not sum to 1.
    """

    def __init__(self, stages: Sequence[Mapping], *, epochs: int | None = None) -> None:
        self.epochs = epochs
        known = [field.name for field in fields(Stage)]
        for stage in stages:
            unknown, missing = sorted(set(stage) - set(known)), sorted({"name", "epochs", "rates"} - set(stage))
            if unknown or missing:
                raise PyrasegError(f"A stage has unknown fields {unknown} and lacks {missing}; its fields are {known}.")
        self.stages = [Stage(**stage) for stage in stages]
        if abs(sum(stage.epochs for stage in self.stages) - 1) > 1e-6:
            raise PyrasegError(f"The stages' shares of the epochs, {[s.epochs for s in self.stages]}, do not sum to 1.")

    @property
    def parts(self) -> list[str]:
        """Return the names of all parts that a stage gives a rate to: `parameter_groups` makes groups of them."""
        return list(dict.fromkeys(part for stage in self.stages for part in stage.rates))

    def at(self, epoch: int, max_epochs: int) -> Stage:
        """Return the stage that rules `epoch`, counted from 1: the one in which the epoch's middle lies."""
        return self._locate(epoch, max_epochs)[0]

    def rates(self, epoch: int, max_epochs: int) -> dict[str, float]:
        """Return the learning rate of every part that learns in `epoch`, counted from 1."""
        stage, passed = self._locate(epoch, max_epochs)
        share = stage.falls_to + (1 - stage.falls_to) * (1 + cos(pi * passed)) / 2
        return {part: rate * share for part, rate in stage.rates.items()}

    def _locate(self, epoch: int, max_epochs: int) -> tuple[Stage, float]:
        """Return the stage in which the middle of an epoch lies, and the share of the stage that has passed by then."""
        position, end = (epoch - 0.5) / (self.epochs or max_epochs), 0.0
        for stage in self.stages:
            end += stage.epochs
            if position < end:
                break
        return stage, min(1.0, 1 - (end - position) / stage.epochs)


class StageHandler:
    """Put the stage of every epoch into force when the epoch starts.

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
            unknown = sorted(part for part in stage.rates if not any(_holds(part, group) for group in groups))
            if unknown:
                raise PyrasegError(
                    f"Stage {stage.name!r} gives a rate to {unknown}; the network's parts are {network.part_names()} "
                    f"and the optimizer's groups {groups}. Finer parts get groups by `parameter_groups(plan.parts)`."
                )

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        stage = self.plan.at(engine.state.epoch, engine.state.max_epochs)
        rates = self.plan.rates(engine.state.epoch, engine.state.max_epochs)
        self.network.learn_only(rates)
        for group in self.optimizer.param_groups:
            holders = [part for part in rates if _holds(part, group["name"])]
            group["lr"] = rates[max(holders, key=len)] if holders else 0.0
        self.sampler.set_epoch(engine.state.epoch, data=stage.data, strength=stage.strength)


def _holds(part: str, finer: str) -> bool:
    """Return whether a part is `finer` or holds it."""
    return f"{finer}.".startswith(f"{part}.")
