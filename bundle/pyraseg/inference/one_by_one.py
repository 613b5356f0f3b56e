# SPDX-License-Identifier: Apache-2.0
"""Segment input after input, so that one that fails stops no other."""

from typing import Any

from ignite.engine import Engine

from bundle.pyraseg.inference.tally import Tally


class SegmentOne:
    """Be the iteration of a `SupervisedEvaluator`: its own one, whose failure counts for its input alone.

    Args:
        tally: where a failure is reported. The batch of the input is empty afterwards, so that handlers pass it over.
    """

    def __init__(self, *, tally: Tally) -> None:
        self.tally = tally

    def __call__(self, engine: Engine, batch: dict[str, Any]) -> Any:
        (name,) = batch["name"]
        try:
            return engine._iteration(engine, batch)  # the network and, by its events, the postprocessing
        except Exception as error:
            self.tally.fail(name, error)
        engine.state.batch, engine.state.output = [], []
        return engine.state.output
