# SPDX-License-Identifier: Apache-2.0
"""Validation falls on every interval and on the last epoch."""

import pytest
from ignite.engine import Engine

from bundle.pyraseg.training.stages import StagePlan
from bundle.pyraseg.training.validation import ValidationHandler


@pytest.mark.parametrize(
    ("epochs", "interval", "expected"), [(5, 2, [2, 4, 5]), (4, 2, [2, 4]), (1, 3, [1]), (3, 1, [1, 2, 3])]
)
def test_epochs_that_are_validated(epochs, interval, expected):
    validated = []

    class Validator:
        def run(self, epoch):
            validated.append(epoch)

    handler = ValidationHandler(
        interval, plan=StagePlan([{"name": "a", "epoch_fraction": 1.0, "learning_rates": {"a": 1}}])
    )
    handler.validator = Validator()
    trainer = Engine(lambda engine, batch: None)
    handler.attach(trainer)
    trainer.run([0], max_epochs=epochs)
    assert validated == expected
