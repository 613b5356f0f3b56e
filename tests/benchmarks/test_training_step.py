# SPDX-License-Identifier: Apache-2.0
"""The benchmark of training steps: a process that trains, what is asked for, and the tables."""

import pytest
import torch

from benchmarks.busy_machine import table
from benchmarks.training_step import NEW, OLD, OTHERS, ROOT, Trainer, check, losses_table, times_table
from bundle.pyraseg.core import PyrasegError


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    path = tmp_path_factory.mktemp("batches") / "CT.pt"
    torch.manual_seed(0)
    images = torch.randn(2, 4, 9, 64, 64).half()
    torch.save([{"image": image, "label": (image[:, :1] > 0).to(torch.uint8)} for image in images], path)
    return path


def losses(batches, what, *, seed: int = 0) -> list[float]:
    with Trainer(ROOT, what, task="CT", batches=batches, threads=1, seed=seed) as trainer:
        found = trainer.run(2)["losses"] + trainer.run(1)["losses"]
    return found


@pytest.mark.slow
def test_a_process_trains_from_its_seed_with_the_options_that_it_is_given(batches):
    exact, own = losses(batches, OTHERS[1]), losses(batches, OTHERS[0])
    assert own == pytest.approx(exact, rel=1e-3)  # the same function: float32 with both kinds of gradients
    assert losses(batches, OTHERS[0]) == own
    assert losses(batches, OTHERS[0], seed=1) != own
    assert losses(batches, NEW) == pytest.approx(exact, rel=0.1)


@pytest.mark.slow
def test_peers_train_on_the_same_batches(batches):
    for peer in (OTHERS[3], OTHERS[5]):
        assert len(set(losses(batches, peer))) == 3


def report(*, old: float, distance: float) -> dict:
    rows = [
        {"task": "CT", "threads": 1, "name": name, "allocator": allocator, "median_s": median}
        for name, allocator, median in ((*OLD[:2], old), (*NEW[:2], 0.5))
    ]
    losses = {name: [0.9] * 10 for name in ("old, seed 0", "old, seed 1", "new, seed 0")}
    apart = {"old, seed 1": 0.01, "new, seed 0": distance}
    return {
        "processor": "a processor", "instructions": "AVX512-BF16, no AMX", "versions": {"torch": "2"}, "rounds": 3,
        "rows": rows, "losses": {"CT": {"losses": losses, "mean_distance_from_old_seed_0": apart}},
    }  # fmt: skip


def test_what_was_asked_for_is_checked():
    check(report(old=0.8, distance=0.01))
    with pytest.raises(PyrasegError, match=r"1\.50 times"):
        check(report(old=0.75, distance=0.01))
    with pytest.raises(PyrasegError, match=r"2\.00 times .* asked for 2\.2"):
        check(report(old=1.0, distance=0.01) | {"instructions": "AMX, AVX512-BF16"})
    with pytest.raises(PyrasegError, match=r"losses 0\.02 apart"):
        check(report(old=0.8, distance=0.02))


def test_tables():
    times = times_table(report(old=0.8, distance=0.01)).splitlines()
    assert times[2].startswith("| bfbc4b6 | as users run it | 0.80 s, 1.60x |")
    assert times[3].startswith("| this revision | kept | 0.50 s, 1.00x |")
    assert losses_table(report(old=0.8, distance=0.01)).splitlines()[-1].endswith("| 0.900 | 0.900 | 0.01 |")
    rows = [{"name": "bfbc4b6", "threads": 2, "epoch_s": {"alone": 7.0, "busy": 163.0}, "ratio": 23.29}]
    busy = {"processor": "p", "processors": 2, "versions": {"torch": "2"}, "busy": 4, "rows": rows}
    assert "| bfbc4b6 | 2 | 7.0 | 163.0 | 23.29 |" in table(busy)
