# SPDX-License-Identifier: Apache-2.0
"""Trials of configs as they are trained: on slices and in 3-D, of classes and of regions that overlap."""

import pytest

from bundle.pyraseg.workflow import read_config
from bundle.pyraseg_tools.fingerprint.trial import _trial
from tests.helpers.commands import ROOT

REGIONS = {"whole": ["liver", "lesion"], "core": ["lesion"]}


@pytest.mark.parametrize("regions", [None, REGIONS])
@pytest.mark.parametrize(
    ("names", "key", "size"), [(["train"], "slice_size", [64, 64]), (["train", "volumes"], "patch_size", [16, 16, 16])]
)
def test_a_step_and_the_augmentation_of_a_config_are_run(names, key, size, regions):
    parser = read_config([ROOT / "configs" / f"{name}.json" for name in names], {"pretrained": False, "device": "cpu"})
    for knob, value in {key: size, "channels": [4, 8], "regions": regions}.items():
        parser[knob] = value
    trial = _trial(parser.get(), 2, key)
    assert (trial.samples, trial.pixels) == (2, 4096)
    assert trial.step > 0 and trial.augmentation > 0 and trial.seconds == trial.step + trial.augmentation
    assert trial.peak > 100 * 2**20  # this process has PyTorch in it
