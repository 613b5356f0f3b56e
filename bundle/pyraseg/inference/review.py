# SPDX-License-Identifier: Apache-2.0
"""Which of the segmented inputs a person should look at first."""

import logging
from pathlib import Path

from ignite.engine import Engine, Events

from bundle.pyraseg.core import write_csv
from bundle.pyraseg.inference.uncertainty import mean_uncertainty

logger = logging.getLogger(__name__)


class ReviewList:
    """Write `review.csv` with the inputs in the order of their uncertainty, the most uncertain first.

    It reads what `Uncertainty` puts into the output.

    Args:
        output_dir: folder of the file.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.path = Path(output_dir) / "review.csv"

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self)

    def start(self, engine: Engine) -> None:
        """Forget the inputs of a run before."""
        self.uncertainties: dict[str, float] = {}

    def add(self, engine: Engine) -> None:
        """Remember the uncertainty of the input of an iteration; one that failed has left nothing."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            self.uncertainties[item["name"]] = mean_uncertainty(output["uncertainty"])

    def __call__(self, engine: Engine) -> None:
        order = sorted(self.uncertainties, key=self.uncertainties.__getitem__, reverse=True)
        rows = [{"case": name, "uncertainty": self.uncertainties[name]} for name in order]
        write_csv(self.path, ["case", "uncertainty"], rows)
        logger.info("Look first at %s; the order of all is in %s", ", ".join(order[:3]) or "nothing", self.path)
