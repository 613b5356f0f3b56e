# SPDX-License-Identifier: Apache-2.0
"""Sequences are taken out as often as was asked for, whole, and never the first."""

import numpy as np
import pytest
import torch

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.transforms import RandSequenceDropoutd

WINDOWS = {"t1": ["brain"], "flair": ["brain", "stroke"], "t2": ["brain"]}


def test_each_but_the_first_is_dropped_by_itself_with_all_its_channels():
    drop = RandSequenceDropoutd("image", prob=0.3, windows=WINDOWS, sequences=["t1", "flair", "t2"], value=-1)
    drop.set_random_state(seed=0)
    image = torch.ones(3 * 4, 2, 2)  # three slices of four channels
    dropped = []
    for _ in range(2000):
        found = drop({"image": image})["image"]
        channels = found.reshape(3, 4, 4)[..., 0]
        assert (channels == channels[0]).all() and ((found == 1) | (found == -1)).all()
        t1, flair, other, t2 = (channels[0] == -1).tolist()
        assert not t1 and flair == other
        dropped.append((flair, t2))
    shares = np.mean(dropped, axis=0)
    both = np.mean(np.all(dropped, axis=1))
    np.testing.assert_allclose([*shares, both], [0.3, 0.3, 0.09], atol=0.035)  # three standard deviations and more
    assert (image == 1).all()


def test_the_same_seed_drops_the_same():
    drop = RandSequenceDropoutd("image", prob=0.5, windows=["brain"], sequences=["t1", "flair"])
    runs = []
    for _ in range(2):
        drop.set_random_state(seed=5)
        runs.append([float(drop({"image": torch.ones(2, 1, 1)})["image"][1]) for _ in range(20)])
    assert runs[0] == runs[1] and set(runs[0]) == {0.0, 1.0}


@pytest.mark.parametrize("sequences", [None, ["t1"]])
def test_one_sequence_cannot_be_dropped(sequences):
    with pytest.raises(PyrasegError, match="sequence_dropout takes sequences but the first out"):
        RandSequenceDropoutd("image", prob=0.5, windows=["brain"], sequences=sequences)


def test_channels_of_another_model_are_refused():
    drop = RandSequenceDropoutd("image", prob=0.5, windows=["brain"], sequences=["t1", "flair"])
    with pytest.raises(PyrasegError, match="has 3 channels, and 2 come of the windows"):
        drop({"image": torch.ones(3, 1, 1)})
