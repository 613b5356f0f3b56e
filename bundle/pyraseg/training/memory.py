# SPDX-License-Identifier: Apache-2.0
"""How much memory and time a training step takes, measured, and the batch size that fits."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks import channels_last

#: Share of the stated memory that a training may plan with: fragments, data loading and validation take the rest.
USABLE = 0.8
LARGEST_BATCH = 32  # beyond which an epoch of some hundred slices has too few steps
STEPS = 2  # the optimizer's state exists from the second step on


class StepCost(NamedTuple):
    """What a training step takes: bytes at the peak of the process, and seconds (of the processor, on a CPU)."""

    peak: int
    seconds: float


def cost_of_steps(
    network: nn.Module,
    loss: Callable[[Any, torch.Tensor], torch.Tensor],
    *,
    image_shape: Sequence[int],
    device: str | torch.device,
    amp_dtype: torch.dtype | None = None,
    inferer: Callable[[torch.Tensor, nn.Module], Any] | None = None,
    label_channels: int = 1,
) -> StepCost:
    """Run training steps on random images and measure the last one.

    On a GPU the peak is what PyTorch has reserved; on a CPU it is the process's peak of resident memory so far, so that
    a process must not measure a smaller batch after a larger one: use a new one for each.

    Args:
        network: on any device, (B, C, W, H[, D]) -> (B, K, W, H[, D]), or a list of such logits.
        loss: of what the network returns and a label (B, L, W, H[, D]).
        image_shape: (B, C, W, H[, D]).
        device: to measure on.
        amp_dtype: of the mixed precision, or None.
        inferer: how the training calls the network, such as `TrainingInferer`; None: directly.
        label_channels: L, 1 for class indices, or as many as there are regions that overlap.
    """
    device = torch.device(device)
    network = channels_last(network.to(device)).train()
    optimizer = torch.optim.AdamW(network.parameters())
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds = 0.0
    for _ in range(STEPS):
        image = torch.randn(*image_shape, device=device)
        label = torch.zeros(image_shape[0], label_channels, *image_shape[2:], device=device)
        label[:, :, : image_shape[2] // 2] = 1
        begun = clock()
        with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
            value = loss(inferer(image, network) if inferer else network(image), label)
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = clock() - begun
    peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else resident_peak()
    return StepCost(peak, seconds)


def resident_peak() -> int:
    """Return the largest resident memory of this process so far, in bytes.

    Raises:
        PyrasegError: the system does not tell.
    """
    status = Path("/proc/self/status")  # resource.getrusage counts the parent's memory before this program was started
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise PyrasegError("This system does not report the memory of a process. Set batch_size by hand.")


def fitting_batch(sizes: Sequence[int], peaks: Sequence[int], memory: float) -> int:
    """Return the largest even batch size that fits, by the straight line through two measurements.

    Args:
        sizes: two batch sizes.
        peaks: bytes that each took.
        memory: bytes that there are, of which `USABLE` may be planned with.

    Raises:
        PyrasegError: not even a batch of two fits.
    """
    step = max(peaks[1] - peaks[0], 1) / (sizes[1] - sizes[0])
    largest = int((USABLE * memory - peaks[0]) // step + sizes[0])
    if largest < 2:
        raise PyrasegError(
            f"A batch of {sizes[0]} takes {peaks[0] / 2**30:.1f} GB, and {memory / 2**30:.1f} GB are given, of which "
            f"{USABLE:.0%} can be planned with. Give more memory, a smaller slice_size or a smaller network."
        )
    return min(largest // 2 * 2, LARGEST_BATCH)
