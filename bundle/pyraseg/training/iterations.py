# SPDX-License-Identifier: Apache-2.0
"""What every iteration of a training needs beside the step itself.

Augmentation on the device that trains, random numbers, gradients of bounded length, an average of the weights, an end
where a loss or a gradient is not finite, and plain words when a GPU's memory runs out.
"""

import logging
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from monai.engines import IterationEvents, default_prepare_batch
from monai.transforms import Compose
from torch import nn
from torch.optim import Optimizer

from bundle.pyraseg.core import PyrasegError, process_rank
from bundle.pyraseg.networks import DiceFocalLoss, PartialTarget, TaughtTarget
from bundle.pyraseg.transforms import set_strength, split_at_random

logger = logging.getLogger(__name__)


class AugmentBatch:
    """Move a batch to a device and, where its slices were only drawn, augment them there: a trainer's `prepare_batch`.

    A dataset that leaves augmentation to the device (see `SliceDataset`) adds to every slice the seed and the strength
    of its draw. So a slice is augmented the same wherever that happens, but for the noise, whose numbers CUDA draws
    otherwise, and for rounding.

    Args:
        augmentation: the dataset's; what it does before its first random transform was done when the slice was loaded.
        loss: that the label is for, told apart where some samples were annotated for some of the classes only.
        teacher: network whose logits for the augmented images go with the label, see `DistillationLoss`.

    Returns:
        Image (B, C, W, H) and label (B, 1, W, H) on the device; in place of the label a `PartialTarget` where a sample
        was not annotated for all classes, and a `TaughtTarget` of either where there is a teacher.

    Raises:
        PyrasegError: there is such a sample, and the loss cannot leave classes out.
    """

    def __init__(self, augmentation: Compose, *, loss: Any = None, teacher: nn.Module | None = None) -> None:
        _, self.augmentation = split_at_random(augmentation)
        self.loss = loss
        self.teacher = teacher

    def __call__(
        self, batch: dict[str, torch.Tensor], device: Any = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | PartialTarget | TaughtTarget]:
        image, label = self._augment(batch, *default_prepare_batch(batch, device, non_blocking, **kwargs))
        target = self._target(batch, label, non_blocking)
        if self.teacher is None:
            return image, target
        channels_last = torch.channels_last if image.dim() == 4 else torch.channels_last_3d
        with torch.no_grad():
            return image, TaughtTarget(target, self.teacher(image.to(memory_format=channels_last)))

    def _target(self, batch: dict[str, torch.Tensor], label: torch.Tensor, non_blocking: bool) -> Any:
        """Return the label, and with it what each sample was annotated for where that is not all."""
        annotated = batch.get("annotated")
        if annotated is None or annotated.all():
            return label
        if not isinstance(self.loss, DiceFocalLoss):
            raise PyrasegError(
                "Some cases of the data list were annotated for some of the classes only, and the loss "
                f"{type(self.loss).__name__} would take the others for background. Use DiceFocalLoss or DiceCELoss of "
                "bundle.pyraseg.networks, or a class derived from them."
            )
        return PartialTarget(label, annotated.to(label.device, non_blocking=non_blocking))

    def _augment(
        self, batch: dict[str, torch.Tensor], image: torch.Tensor, label: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if "seed" not in batch:
            return image, label
        slices = []
        draws = zip(image, label, batch["seed"].tolist(), batch["strength"].tolist(), strict=True)
        for of_image, of_label, seed, strength in draws:
            self.augmentation.set_random_state(seed=seed)
            set_strength(self.augmentation, strength)
            slices.append(self.augmentation({"image": of_image, "label": of_label}))
        return torch.stack([each["image"] for each in slices]), torch.stack([each["label"] for each in slices])


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
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.max_norm)


class RequireFinite:
    """Stop a training at a loss, a gradient or a weight that is NaN or infinite, and name the batch's cases.

    What the gradient scaler of mixed precision is made for does not stop it: a gradient that overflows, after which
    the scaler leaves the step out and scales less. A loss that overflows on finite images leaves its step out in the
    same way, and stops the training only where that goes on.

    Args:
        optimizer: whose steps are held back.
        in_a_row: so many losses one after the other that are not finite stop a training with a scaler.

    Raises:
        PyrasegError: in the iteration, see above.
    """

    def __init__(self, optimizer: Optimizer, *, in_a_row: int = 8) -> None:
        self.optimizer = optimizer
        self.in_a_row = in_a_row
        self.count = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)
        self.optimizer.register_step_pre_hook(lambda *_: self.check_gradients(engine))
        self.optimizer.register_step_post_hook(lambda *_: self.check_weights(engine))

    def __call__(self, engine: Engine) -> None:
        output = engine.state.output
        loss = output["loss"].detach()
        if loss.isfinite():
            self.count = 0
            return
        self.count += 1
        scaler = getattr(engine, "scaler", None)
        scaled = scaler is not None and scaler.is_enabled() and bool(output["image"].isfinite().all())
        if not scaled or self.count >= self.in_a_row:
            raise self._fault(engine, f"The loss is {loss.item():g}")
        logger.warning("The loss overflows in half precision at iteration %d: no step is made", engine.state.iteration)

    def check_gradients(self, engine: Engine) -> None:
        """Refuse a step by gradients that are not finite; a scaler does not ask for one."""
        if not _are_finite([weight.grad for weight in self._weights() if weight.grad is not None]):
            raise self._fault(engine, "The gradient is NaN or infinite")

    def check_weights(self, engine: Engine) -> None:
        """Refuse what a step has made of the weights where they are not finite any more.

        The next loss would tell it of another batch's cases, and no loss follows the last step of an epoch.
        """
        if not _are_finite([weight.detach() for weight in self._weights()]):
            raise self._fault(engine, "Weights are NaN or infinite after the step")

    def _weights(self) -> list[torch.Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _fault(self, engine: Engine, what: str) -> PyrasegError:
        batch = engine.state.batch
        cases = list(dict.fromkeys(batch["case"])) if isinstance(batch, dict) and "case" in batch else []
        return PyrasegError(
            f"{what} in epoch {engine.state.epoch}, iteration {engine.state.iteration}: the training stops, and keeps "
            f"nothing of it. The cases of this batch: {', '.join(map(str, cases)) or 'unknown'}. Look at these images "
            "and labels. If nothing is wrong with them, lower the learning rates, set max_grad_norm, or set amp to "
            "false."
        )


def _are_finite(tensors: list[torch.Tensor]) -> bool:
    return not tensors or bool(nn.utils.get_total_norm(tensors, norm_type=float("inf")).isfinite())


class ExplainOutOfMemory:
    """Say which knobs save memory when a GPU has too little."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EXCEPTION_RAISED, self)

    def __call__(self, engine: Engine, error: Exception) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            raise PyrasegError(
                "The memory of the GPU is too small for this training. Lower batch_size (accumulation_steps keeps "
                "the number of images of a step), set amp to true, raise output_stride to 32, or choose a lighter "
                f"encoder, such as mobilenetv3_large_100. torch says: {str(error).splitlines()[0]}"
            ) from error
        raise error


class AveragedWeights:
    """Keep an exponential moving average of a network's weights and buffers, or, switched off, the network itself.

    Args:
        network: that is trained.
        ema_decay: share of the average that an iteration keeps, such as 0.99; 0 switches it off.
    """

    def __init__(self, network: nn.Module, *, ema_decay: float = 0.0) -> None:
        self.handler = EMAHandler(network, momentum=1 - ema_decay, handle_buffers="update") if ema_decay else None
        #: The network to validate and to keep: the average, or the trained one.
        self.network: nn.Module = self.handler.ema_model if self.handler else network

    def attach(self, engine: Engine) -> None:
        if self.handler:
            self.handler.attach(engine, warn_if_exists=False)

    def state_dict(self) -> dict:
        """Return the average; nothing where it is switched off."""
        return self.network.state_dict() if self.handler else {}

    def load_state_dict(self, state: dict) -> None:
        """Go on from an average."""
        if self.handler:
            self.network.load_state_dict(state)
