# SPDX-License-Identifier: Apache-2.0
"""When a training validates."""

import monai.handlers
from ignite.engine import Engine, Events

from bundle.pyraseg.training.stages import planned_epoch


class ValidationHandler(monai.handlers.ValidationHandler):
    """Validate every `interval` epochs, and after the last one, whose weights would else never be compared."""

    def attach(self, engine: Engine) -> None:
        def is_due(trainer: Engine, epoch: int) -> bool:
            return epoch % self.interval == 0 or planned_epoch(trainer) >= trainer.state.max_epochs

        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=is_due), self)
