# SPDX-License-Identifier: Apache-2.0
"""The line through two measurements, and measurements against tensors of known size."""

import subprocess
import sys

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.training.memory import LARGEST_BATCH, fitting_batch

GB = 2**30


@pytest.mark.parametrize(
    ("memory", "batch"),
    [
        (5.0, 14),  # 0.8 * 5 = 4 GB: 1 GB and 0.25 GB a sample beyond the second, 14
        (4.9, 12),  # 13.68, even
        (1.25, 2),
        (1000, LARGEST_BATCH),
    ],
)
def test_the_batch_is_read_off_a_straight_line(memory, batch):
    assert fitting_batch((2, 6), (GB, 2 * GB), memory * GB) == batch


def test_too_little_memory_is_refused():
    with pytest.raises(PyrasegError, match=r"A batch of 2 takes 1\.0 GB, and 1\.1 GB are given"):
        fitting_batch((2, 6), (GB, 2 * GB), 1.1 * GB)


@pytest.mark.slow
def test_the_peak_is_that_of_the_activations():
    # The sigmoid keeps 64 maps of 256 x 256 floats, 16 MiB a sample: 6 more samples take at least 96 MiB more.
    code = (
        "import sys, torch; from torch import nn; from bundle.pyraseg.training.memory import cost_of_steps\n"
        "net = nn.Sequential(nn.Conv2d(1, 64, 1), nn.Sigmoid(), nn.Conv2d(64, 2, 1))\n"
        "loss = lambda logits, label: nn.functional.cross_entropy(logits, label[:, 0].long())\n"
        "print(cost_of_steps(net, loss, image_shape=(int(sys.argv[1]), 1, 256, 256), device='cpu').peak)"
    )
    peaks = [
        int(subprocess.run([sys.executable, "-c", code, size], capture_output=True, text=True, check=True).stdout)
        for size in ("2", "8")
    ]
    assert 96 * 2**20 < peaks[1] - peaks[0] < 6 * 96 * 2**20
