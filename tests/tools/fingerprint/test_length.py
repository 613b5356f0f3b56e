# SPDX-License-Identifier: Apache-2.0
"""Lengths of trainings, tiles and what fits into memory: against MONAI and closed forms."""

import pytest
from monai.data.utils import dense_patch_slices
from monai.inferers.utils import _get_scan_interval

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.fingerprint import Trial, fitting_voxels, propose_length, tiles_of

GB = 2**30


@pytest.mark.parametrize("seconds", [0.02, 0.6, 5])
@pytest.mark.parametrize("minutes", [1, 30, 600])
def test_the_minutes_are_used_and_not_exceeded(seconds, minutes):
    found = propose_length(seconds, minutes=minutes, batch_size=2, validation_seconds=10)
    samples, epochs, interval = (found[key].value for key in ("samples_per_epoch", "epochs", "val_interval"))
    assert samples % 2 == 0 and 1 <= interval <= epochs
    used = seconds * samples * epochs / (60 * minutes)
    assert used <= 0.8
    assert used > 0.8 - seconds * 2 * (epochs + 1) / (60 * minutes)  # less than a batch an epoch is left
    assert epochs / interval <= max(1, 0.15 * 60 * minutes / 10)  # validations


def test_a_time_without_a_batch_is_refused():
    with pytest.raises(PyrasegError, match=r"0\.01 minutes have no batch of 4"):
        propose_length(1.0, minutes=0.01, batch_size=4, validation_seconds=1)


@pytest.mark.parametrize("shape", [(100, 60, 30), (40, 41, 80), (35, 50, 36)])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_tiles_are_those_of_monai(shape, overlap):
    patch = (40, 40, 24)
    whole = tuple(max(side, of) for side, of in zip(shape, patch, strict=True))  # it pads what is smaller
    interval = _get_scan_interval(whole, patch, 3, (overlap,) * 3)
    assert tiles_of(shape, patch, overlap) == len(dense_patch_slices(whole, patch, interval))


def test_voxels_are_read_off_a_straight_line():
    trials = [Trial(n, 1000, peak, 0.1, 0.0) for n, peak in ((2, GB), (4, 2 * GB))]
    assert fitting_voxels(trials, 5 * GB) == 2000 + 3 * 2000  # 4 GB are planned with: 3 more, of 2000 voxels each
    with pytest.raises(PyrasegError, match=r"takes 1\.0 GB with 2,000 voxels, and 1\.0 GB are given"):
        fitting_voxels(trials, 1.0 * GB)
