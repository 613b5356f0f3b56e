# SPDX-License-Identifier: Apache-2.0
"""What every iteration of a training needs beside the step itself: its random numbers, gradients of bounded length, and
plain words when a GPU's memory runs out."""

from collections.abc import Iterable

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.optim import Optimizer

from bundle.pyraseg.core import PyrasegError, process_rank


class SeedEpochs:
    """Seed torch's random numbers (dropout draws them) at the first iteration of every epoch, from seed and epoch.

    Draws of slices and their augmentation have seeds of their own, see `StagedSampler`. So no random state has to be
    carried from one process to the next: an epoch is the same whether a run came to it or was resumed there.

    Args:
        seed: of the run.
        rank: of the process, whose dropout is its own; None asks for it.
    """

    def __init__(self, seed: int, *, rank: int | None = None) -> None:
        self.seed = seed
        self.rank = process_rank() if rank is None else rank

    def attach(self, engine: Engine) -> None:
        # Behind the making of the batch: the data loader itself draws a number whenever its workers are started.
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        if (engine.state.iteration - 1) % engine.state.epoch_length == 0:
            generator = torch.Generator().manual_seed(self.seed)
            step = 1_000_003 * engine.state.epoch + self.rank
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)) + step)


class ClipGradients:
    """Shorten the gradient of all parameters together to a norm before every step of the optimizer.

    It hooks the optimizer's step, which a gradient scaler calls with the gradients unscaled.

    Args:
        optimizer: whose steps are bounded.
        max_norm: largest Euclidean norm; None leaves the gradients alone.
    """

    def __init__(self, optimizer: Optimizer, *, max_norm: float | None) -> None:
        self.optimizer = optimizer
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        self.optimizer.register_step_pre_hook(self._clip)

    def _clip(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        if self.max_norm is not None:
            nn.utils.clip_grad_norm_(_parameters(optimizer), self.max_norm)


def _parameters(optimizer: Optimizer) -> Iterable[nn.Parameter]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


class ExplainOutOfMemory:
    """Say which knobs save memory when a GPU has too little."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EXCEPTION_RAISED, self)

    def __call__(self, engine: Engine, error: Exception) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            raise PyrasegError(
                "The GPU's memory does not hold this training. Lower batch_size (accumulation_steps keeps the step's "
                "number of images), set amp to true, raise output_stride to 32, or choose a lighter encoder, such as "
                f"mobilenetv3_large_100. torch says: {str(error).splitlines()[0]}"
            ) from error
        raise error
