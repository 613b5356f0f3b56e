# SPDX-License-Identifier: Apache-2.0
"""Random numbers, the length of gradients and the words for a full GPU."""

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.training.iterations import ClipGradients, ExplainOutOfMemory, SeedEpochs


def draws(seed: int, *, first: int = 1, rank: int = 0, before: int = 0) -> dict[int, list[float]]:
    """Return what each of five epochs draws, after some numbers that were drawn before the run."""
    found: dict[int, list[float]] = {}
    engine = Engine(lambda engine, batch: found.setdefault(engine.state.epoch, []).append(torch.rand(()).item()))
    SeedEpochs(seed, rank=rank).attach(engine)
    torch.rand(before)
    engine.load_state_dict({"epoch": first - 1, "epoch_length": 3, "max_epochs": 5})
    engine.run([0, 1, 2])
    return found


def test_an_epoch_draws_the_same_numbers_whenever_a_run_comes_to_it():
    whole = draws(0, before=7)
    assert len({number for numbers in whole.values() for number in numbers}) == 15
    for first in (2, 4, 5):
        assert draws(0, first=first) == {epoch: whole[epoch] for epoch in range(first, 6)}


def test_other_seeds_and_other_processes_draw_other_numbers():
    numbers = [tuple(draws(seed, rank=rank)[1]) for seed in (0, 1) for rank in (0, 1)]
    assert len(set(numbers)) == 4


@pytest.mark.parametrize(("max_norm", "length"), [(None, 5.0), (10.0, 5.0), (2.0, 2.0)])
def test_a_step_is_as_long_as_its_clipped_gradient(max_norm, length):
    weights = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD(weights, lr=1.0)
    ClipGradients(optimizer, max_norm=max_norm).attach(Engine(lambda engine, batch: None))
    (3 * weights[0] + 4 * weights[1]).sum().backward()
    optimizer.step()
    assert torch.cat([weight.detach() for weight in weights]).norm().item() == pytest.approx(length, rel=1e-5)


def test_a_full_gpu_names_the_knobs():
    def step(engine: Engine, batch: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines.")

    engine = Engine(step)
    ExplainOutOfMemory().attach(engine)
    with pytest.raises(
        PyrasegError, match=r"batch_size .*amp .*output_stride .*encoder.*Tried to allocate 2.00 GiB\.$"
    ):
        engine.run([0])


def test_other_errors_stay_what_they_are():
    engine = Engine(lambda engine, batch: 1 / 0)
    ExplainOutOfMemory().attach(engine)
    with pytest.raises(ZeroDivisionError):
        engine.run([0])
