# SPDX-License-Identifier: Apache-2.0
"""Measure training steps of a config on random images: memory and seconds, in a process of their own."""

import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.training import USABLE, cost_of_steps

#: How often the augmentation is run before it is measured, and how often it is.
WARM, REPEATED = 2, 5


class Trial(NamedTuple):
    """What training steps of a config take.

    Attributes:
        samples: of the batch.
        pixels: or voxels, of a sample.
        peak: bytes of the process.
        step: seconds of a sample's part of a step: of one thread of the processor, or of the clock on a GPU.
        augmentation: seconds of the processor for a sample.
    """

    samples: int
    pixels: int
    peak: int
    step: float
    augmentation: float

    @property
    def seconds(self) -> float:
        """Return the seconds of a sample."""
        return self.step + self.augmentation


def run_trials(parser: ConfigParser, batch_sizes: Sequence[int], key: str) -> list[Trial]:
    """Measure batches of several sizes.

    Args:
        parser: a config of a training; encoders start from random weights, which take as much.
        batch_sizes: from small to large; of one, batch normalization has nothing to normalize.
        key: of the knob with the size of a sample, "slice_size" or "patch_size".
    """
    config = dict(parser.get())
    if "pretrained" in config:
        config["pretrained"] = False
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # whose memory is that of the trials alone
        return [pool.apply(_trial, (config, size, key)) for size in sorted(batch_sizes)]


def _trial(config: Mapping[str, Any], batch_size: int, key: str) -> Trial:
    torch.set_num_threads(1)
    parser = ConfigParser(dict(config))
    channels = parser.get_parsed_content("network_def#in_channels")
    size = [int(side) for side in parser.get_parsed_content(key)]
    cost = cost_of_steps(
        parser.get_parsed_content("network_def"),
        parser.get_parsed_content("train#loss#loss"),
        image_shape=(batch_size, channels, *size),
        device=parser.get_parsed_content("device"),
        amp_dtype=parser.get_parsed_content("amp_dtype") if parser.get_parsed_content("amp") else None,
        inferer=parser.get_parsed_content("train#inferer"),
        label_channels=parser.get_parsed_content("network_def#out_channels") if parser.get("regions") else 1,
    )
    margin = 1 + (parser.get_parsed_content("train#dataset#margin") if key == "patch_size" else 0)
    region = [round(side * margin) for side in size]
    augment = parser.get_parsed_content("train#augmentation").set_random_state(seed=0)
    seconds = []
    for _ in range(WARM + REPEATED):
        sample = {"image": torch.randn(channels, *region), "label": torch.zeros(1, *region, dtype=torch.uint8)}
        begun = time.process_time()
        augment(sample)
        seconds.append(time.process_time() - begun)
    step = cost.seconds / batch_size
    return Trial(batch_size, int(np.prod(size)), cost.peak, step, float(np.mean(seconds[WARM:])))


def fitting_voxels(trials: Sequence[Trial], memory: float) -> int:
    """Return how many voxels of all samples of a batch fit, by the straight line through two trials.

    Args:
        trials: two, of batches of different sizes.
        memory: bytes that there are, of which `USABLE` may be planned with.

    Raises:
        PyrasegError: not even the smaller trial fits.
    """
    one, other = trials
    seen = one.samples * one.pixels
    step = max(other.peak - one.peak, 1) / (other.samples * other.pixels - seen)
    room = USABLE * memory - one.peak
    if room < 0:
        raise PyrasegError(
            f"A training step in 3-D takes {one.peak / 2**30:.1f} GB with {seen:,} voxels, and {memory / 2**30:.1f} GB "
            f"are given, of which {USABLE:.0%} can be planned with. Give more memory."
        )
    return int(seen + room / step)


def memory_of(device: str) -> float:
    """Return the GB of a device, or of the machine, where no one has said how many may be used."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**30
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
