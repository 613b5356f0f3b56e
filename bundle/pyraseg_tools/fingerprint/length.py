# SPDX-License-Identifier: Apache-2.0
"""How long a training may be for the minutes that a user names: samples, epochs, and how often it validates."""

from collections.abc import Sequence

import numpy as np

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.fingerprint.rules import Setting

STEPS_SHARE = 0.8  # of the minutes for training steps; reading, the cache and validation take the rest
VALIDATION_SHARE = 0.15  # of the minutes, at most, unless a single validation takes more
FORWARD = 1 / 3  # of a training step: the backward pass takes twice as long
EPOCHS = (10, 40)  # of a proposal: enough for the shares of the stages, few enough that one has a meaning
FEWEST_STEPS = 400  # of a training, for which batches are made smaller
EPOCH_SAMPLES = 512  # of an epoch, where there is time for as many epochs as that makes


def training_seconds(minutes: float) -> float:
    """Return the seconds of the training steps in the minutes of a whole training."""
    return 60 * minutes * STEPS_SHARE


def steady_batch(batch_size: int, seconds: float, minutes: float | None) -> int:
    """Return the largest even batch up to a size that leaves `FEWEST_STEPS` in the minutes, and at least 2.

    Args:
        batch_size: that fits into memory.
        seconds: a sample.
        minutes: of the whole training; None: of any length.

    >>> steady_batch(32, seconds=0.06, minutes=10)  # 8,000 samples
    20
    """
    if minutes is None:
        return batch_size
    return max(2, min(batch_size, int(training_seconds(minutes) / seconds / FEWEST_STEPS) // 2 * 2))


def propose_length(seconds: float, *, minutes: float, batch_size: int, validation_seconds: float) -> dict[str, Setting]:
    """Return `samples_per_epoch`, `epochs` and `val_interval`.

    Args:
        seconds: a sample, see `Trial`.
        minutes: of the whole training.
        batch_size: what an epoch is a multiple of.
        validation_seconds: of one validation.

    Raises:
        PyrasegError: there is no time for an epoch of one batch.
    """
    most = int(training_seconds(minutes) / seconds)
    if most < batch_size:
        raise PyrasegError(
            f"A sample takes {seconds:.2g} s, so that {minutes:g} minutes have no batch of {batch_size}. Give more "
            "minutes."
        )
    epochs = int(np.clip(most // EPOCH_SAMPLES, *EPOCHS))
    epochs = min(epochs, most // batch_size)
    samples = most // epochs // batch_size * batch_size
    validations = max(1, int(VALIDATION_SHARE * 60 * minutes / max(validation_seconds, 1e-9)))
    interval = int(np.ceil(epochs / min(validations, epochs)))
    why = (
        f"{seconds:.2g} s a sample, measured: {epochs * samples:,} samples in {STEPS_SHARE:.0%} of {minutes:g} minutes"
    )
    return {
        "samples_per_epoch": Setting(samples, why),
        "epochs": Setting(epochs, f"about {EPOCH_SAMPLES} samples each, but from {EPOCHS[0]} to {EPOCHS[1]} of them"),
        "val_interval": Setting(
            interval, f"a validation takes about {validation_seconds:.0f} s; {VALIDATION_SHARE:.0%} of the time is its"
        ),
    }


def tiles_of(shape: Sequence[float], patch: Sequence[int], overlap: float) -> int:
    """Return how many tiles a volume is seen in.

    >>> tiles_of([100, 60, 30], [40, 40, 40], overlap=0.5)  # 4 x 2 x 1
    8
    """
    steps = (max(side - of, 0) / (of * (1 - overlap)) for side, of in zip(shape, patch, strict=True))
    return int(np.prod([1 + np.ceil(step) for step in steps]))
