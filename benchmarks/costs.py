# SPDX-License-Identifier: Apache-2.0
"""What a training costs in processor time, and how long one has to be to cost a given time."""

import json
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from bundle.pyraseg.core import PyrasegError, replacing

#: Fewer epochs than this leave stages none of their own.
FEWEST_EPOCHS = 10
#: Share of the time that validations may take.
VALIDATIONS = 0.1
#: Id of the evaluator of a training.
VALIDATION = "validate#evaluator"


@dataclass(frozen=True)
class Costs:
    """Processor seconds of a training step, of a validation, and of the rest of an epoch (draws, log, checkpoint)."""

    step: float
    validation: float
    rest: float


@dataclass(frozen=True)
class Length:
    """Three knobs of the config that together say how long a training is."""

    epochs: int
    samples_per_epoch: int
    val_interval: int

    def validations(self) -> int:
        """Return how often is validated: every so many epochs, and after the last one."""
        return math.ceil(self.epochs / self.val_interval)

    def seconds(self, costs: Costs, batch_size: int) -> float:
        """Return what the training costs."""
        steps = self.epochs * (self.samples_per_epoch // batch_size)
        return steps * costs.step + self.epochs * costs.rest + self.validations() * costs.validation


def fitting(costs: Costs, seconds: float, *, batch_size: int, val_interval: int, steps_per_epoch: int = 40) -> Length:
    """Return the length of a training that costs so many seconds, or less by no more than a step an epoch.

    Epochs have about `steps_per_epoch` steps, unless that makes them fewer than `FEWEST_EPOCHS`; then they are shorter.
    Where validations every `val_interval` epochs would take more than their share, there are fewer of them.

    Raises:
        PyrasegError: there is no time for a step in every epoch.

    >>> costs = Costs(step=1.0, validation=6.0, rest=1.0)
    >>> length = fitting(costs, 600, batch_size=4, val_interval=2)
    >>> length, length.seconds(costs, batch_size=4)
    (Length(epochs=13, samples_per_epoch=164, val_interval=2), 588.0)
    """
    most = max(1, int(VALIDATIONS * seconds / costs.validation))
    epochs = max(FEWEST_EPOCHS, round((1 - VALIDATIONS) * seconds / (steps_per_epoch * costs.step + costs.rest)))
    interval = max(val_interval, math.ceil(epochs / most))
    left = seconds - epochs * costs.rest - math.ceil(epochs / interval) * costs.validation
    steps = int(left / (epochs * costs.step))
    if steps < 1:
        least = epochs * (costs.step + costs.rest) + math.ceil(epochs / interval) * costs.validation
        raise PyrasegError(f"{seconds:.0f} s are too short for this training: {epochs} epochs take {least:.0f} s.")
    return Length(epochs, steps * batch_size, interval)


class Clock:
    """Take the processor time of a workflow's training and validations; it counts all threads of this process.

    Args:
        parser: of the workflow, before it runs.
        evaluator: id of the evaluator whose runs are timed; that of inference has no trainer beside it.
        keep: JSON file of the seconds of every epoch, in which a resumed training goes on.
    """

    def __init__(
        self, parser: ConfigParser, *, evaluator: str = "validate#evaluator", keep: Path | None = None
    ) -> None:
        self.keep = keep
        self.steps: list[list[float]] = []
        self.epochs: list[float] = []
        #: Processor seconds and elapsed seconds of every validation.
        self.validations: list[tuple[float, float]] = []
        engine = parser.get_parsed_content(evaluator)
        engine.add_event_handler(Events.STARTED, self._start_validation)
        engine.add_event_handler(Events.COMPLETED, self._end_validation)
        if evaluator == VALIDATION:
            trainer = parser.get_parsed_content("train#trainer")
            trainer.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
            trainer.add_event_handler(Events.ITERATION_COMPLETED, self._step)
            trainer.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)

    def costs(self) -> Costs:
        """Return the costs of what ran: the steps of an epoch by their median, which leaves out its first one's start.

        Epochs count alike, since those of different stages cost different times.
        """
        of_epochs = [statistics.median(steps) for steps in self.steps]
        validated = sum(spent for spent, _ in self.validations)
        inside = sum(step * len(steps) for step, steps in zip(of_epochs, self.steps, strict=True))
        return Costs(
            step=statistics.mean(of_epochs),
            validation=validated / len(self.validations),
            rest=max(0.0, (sum(self.epochs) - inside - validated) / len(self.epochs)),
        )

    def kept(self) -> dict[str, float]:
        """Return the processor seconds of every epoch, those before a resume included."""
        assert self.keep is not None
        return json.loads(self.keep.read_text(encoding="utf-8")) if self.keep.is_file() else {}

    def _start_validation(self) -> None:
        self._validation = time.process_time(), time.perf_counter()

    def _end_validation(self) -> None:
        spent, elapsed = self._validation
        self.validations.append((time.process_time() - spent, time.perf_counter() - elapsed))

    def _start_epoch(self) -> None:
        self._epoch = self._last = time.process_time()
        self.steps.append([])

    def _step(self) -> None:
        now = time.process_time()
        self.steps[-1].append(now - self._last)
        self._last = now

    def _end_epoch(self, engine: Engine) -> None:
        self.epochs.append(time.process_time() - self._epoch)
        if self.keep is not None:
            kept = self.kept() | {str(engine.state.epoch): self.epochs[-1]}
            with replacing(self.keep) as temporary:
                temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
