# SPDX-License-Identifier: Apache-2.0
"""When a training validates."""

import monai.handlers
from ignite.engine import Engine, Events
from monai.engines import Evaluator

from bundle.pyraseg.training.stages import StagePlan


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
