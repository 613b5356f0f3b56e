# SPDX-License-Identifier: Apache-2.0
"""Write the probability of every class, on the input's own grid."""

import logging
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events
from monai.data import MetaTensor

from bundle.pyraseg.inference.writers.label_map import write_grid

logger = logging.getLogger(__name__)

#: What a probability of 1 is stored as.
ONE = 65535


def write_probability(probability: MetaTensor, path: Path) -> Path:
    """Write the probabilities of one class in steps of 1/65535.

    A volume (W, H, D) becomes NIfTI with its affine and the slope 1/65535, so that a reader has values from 0 to 1; a
    picture (W, H) becomes 16-bit PNG, whose values are to be divided by 65535.

    Args:
        probability: 0 to 1.
        path: without a suffix.

    Returns:
        The path written.
    """
    stored = np.rint(np.clip(np.asarray(probability.cpu(), np.float32), 0, 1) * ONE).astype(np.uint16)
    return write_grid(stored, np.asarray(probability.affine, float), path, slope=1 / ONE, compression=1)


class SaveProbabilities:
    """Write the probability maps of every input: `NAME_probability_1` and so on, by the number of the class.

    Args:
        output_dir: folder of the files.
        key: of the probabilities, (C, W, H[, D]) on the input's grid; the background is not written.
    """

    def __init__(self, output_dir: str | Path, *, key: str = "probabilities") -> None:
        self.output_dir = Path(output_dir)
        self.key = key

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            for number, probability in enumerate(output[self.key][1:], start=1):
                path = self.output_dir / f"{item['name']}_probability_{number}"
                logger.info("%s -> %s", item["name"], write_probability(probability, path).name)
