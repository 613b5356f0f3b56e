# SPDX-License-Identifier: Apache-2.0
"""When a training validates, and when it, or a stage of it, ends for want of anything better."""

import logging

import monai.handlers
from ignite.engine import Engine, Events
from monai.engines import Evaluator

from bundle.pyraseg.training.stages import StagePlan

logger = logging.getLogger(__name__)


class ValidationHandler(monai.handlers.ValidationHandler):
    """Validate every `interval` epochs, and after the last one, whose weights would else never be compared.

    Args:
        interval: epochs between two validations.
        validator: evaluator that runs them; None where it is set later.
        plan: knows which epoch is the last.
    """

    def __init__(self, interval: int, validator: Evaluator | None = None, *, plan: StagePlan) -> None:
        super().__init__(interval, validator)
        self.plan = plan

    def attach(self, engine: Engine) -> None:
        def is_due(trainer: Engine, epoch: int) -> bool:
            return epoch % self.interval == 0 or self.plan.is_over(epoch, trainer.state.max_epochs)

        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=is_due), self)


class EarlyStopping:
    """Count the validations in a row without a better score, in the stage and in all.

    A stage that has a `patience` of its own and runs out of it gives way to the next one, whose epochs keep their
    number: the training gets shorter. The training ends when the overall patience runs out, or with the last stage.
    Attach it to the trainer behind the handler that validates. (Ignite's class of this name knows no stages.)

    Args:
        plan: the stages.
        evaluator: engine whose key metric is the score.
        patience: validations without a better score after which the training ends; None never does.
    """

    def __init__(self, plan: StagePlan, *, evaluator: Engine, patience: int | None) -> None:
        self.plan = plan
        self.evaluator = evaluator
        self.patience = patience
        self.best = float("-inf")
        self.waited = 0
        self.stage = ""
        self.best_of_stage = float("-inf")
        self.waited_in_stage = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        epoch, max_epochs = engine.state.epoch, engine.state.max_epochs
        stage = self.plan.at(epoch, max_epochs)
        if stage.name != self.stage:
            self.stage, self.best_of_stage, self.waited_in_stage = stage.name, float("-inf"), 0
        if self.evaluator.state.epoch == epoch:  # MONAI's evaluator carries the trainer's epoch
            self._count(self.evaluator.state.metrics[self.evaluator.state.key_metric_name])
            if self.patience is not None and self.waited >= self.patience:
                logger.info("No better score in %d validations: the training ends here.", self.waited)
                engine.terminate()
            elif stage.patience is not None and self.waited_in_stage >= stage.patience:
                left = self.plan.skip(epoch, max_epochs)
                logger.info(
                    "No better score in %d validations: %r ends %d epochs early.",
                    self.waited_in_stage,
                    stage.name,
                    left,
                )
        if self.plan.is_over(epoch, max_epochs):
            engine.terminate()

    def _count(self, score: float) -> None:
        self.waited = 0 if score > self.best else self.waited + 1
        self.waited_in_stage = 0 if score > self.best_of_stage else self.waited_in_stage + 1
        self.best, self.best_of_stage = max(self.best, score), max(self.best_of_stage, score)

    def state_dict(self) -> dict[str, float | int | str]:
        """Return what has been counted, and how far the plan is ahead."""
        kept = ("best", "waited", "stage", "best_of_stage", "waited_in_stage")
        return {"skipped": self.plan.skipped, **{name: getattr(self, name) for name in kept}}

    def load_state_dict(self, state: dict[str, float | int | str]) -> None:
        """Go on counting from a `state_dict`."""
        self.plan.skipped = int(state["skipped"])
        vars(self).update({name: value for name, value in state.items() if name != "skipped"})
