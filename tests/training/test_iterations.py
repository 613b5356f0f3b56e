# SPDX-License-Identifier: Apache-2.0
"""Random numbers, the length of gradients, numbers that are not finite, and the words for a full GPU."""

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import nn

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.training.iterations import ClipGradients, ExplainOutOfMemory, RequireFinite, SeedEpochs


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


# --- losses and gradients that are not finite ---

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Scaler:
    """Stand for the gradient scaler of a GPU where there is none: on, and with nothing to scale."""

    def is_enabled(self) -> bool:
        return True


def trainer(step_loss, *, lr=0.1):
    """Return a trainer of one weight whose loss is `step_loss(weight, image)`, and the weight; it sees six batches."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 2.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    batches = [
        {"image": torch.full((2, 1), float(k)), "label": torch.zeros(2, 1), "case": [f"case_{k}", f"case_{k}"]}
        for k in range(6)
    ]
    engine = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=batches,
        network=network,
        optimizer=optimizer,
        loss_function=lambda pred, label: step_loss(network.weight, pred),
        train_handlers=[RequireFinite(optimizer)],
        decollate=False,
    )
    return engine, network.weight


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_loss_that_is_not_finite_stops_the_training_and_names_the_cases(value):
    engine, weight = trainer(lambda weight, pred: (pred * (float(value) if pred[0] == 6 * weight / 2 else 0)).sum())
    with pytest.raises(PyrasegError, match=f"The loss is {value} in epoch 1, iteration 4: .*of this batch: case_3\\."):
        engine.run()
    assert weight.item() == 2


def test_a_gradient_that_is_not_finite_stops_the_training_before_the_weights_are():
    # the square root has a finite value and an infinite slope at 0
    engine, weight = trainer(lambda weight, pred: (weight - 2).abs().sqrt().sum() + 0 * pred.sum())
    with pytest.raises(PyrasegError, match=r"The gradient is NaN or infinite in epoch 1, iteration 1: .* case_0\."):
        engine.run()
    assert weight.item() == 2


@pytest.mark.parametrize("iteration", [1, 6])
def test_weights_that_are_not_finite_after_a_step_stop_the_training(iteration):
    spoil = iter([0] * (iteration - 1) + [1e38] * 6)
    engine, _ = trainer(lambda weight, pred: next(spoil) * weight.sum() + 0 * pred.sum(), lr=10)
    told = f"Weights are NaN or infinite after the step in epoch 1, iteration {iteration}: .* case_{iteration - 1}\\."
    with pytest.raises(PyrasegError, match=told):
        engine.run()


def test_finite_numbers_of_any_size_go_on():
    engine, weight = trainer(lambda weight, pred: 1e15 * pred.sum())
    engine.run()
    assert engine.state.iteration == 6 and weight.isfinite().all()


@pytest.mark.parametrize(("in_a_row", "stops"), [(3, True), (7, False)])
def test_with_a_scaler_a_loss_may_overflow_but_not_for_ever(in_a_row, stops, caplog):
    network = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    handler = RequireFinite(optimizer, in_a_row=in_a_row)

    def step(engine: Engine, batch: int) -> None:
        engine.state.output = {"image": torch.ones(1), "loss": torch.tensor(float("inf"))}
        handler(engine)

    engine = Engine(step)
    engine.scaler = Scaler()
    if stops:
        with pytest.raises(PyrasegError, match="The loss is inf in epoch 1, iteration 3"):
            engine.run(range(6))
    else:
        engine.run(range(6))
    assert caplog.text.count("no step is made") == (2 if stops else 6)


def test_with_a_scaler_an_image_that_is_not_finite_stops_at_once():
    handler = RequireFinite(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1))

    def step(engine: Engine, batch: int) -> None:
        engine.state.output = {"image": torch.tensor([float("nan")]), "loss": torch.tensor(float("nan"))}
        handler(engine)

    engine = Engine(step)
    engine.scaler = Scaler()
    with pytest.raises(PyrasegError, match="The loss is nan in epoch 1, iteration 1"):
        engine.run(range(6))


@pytest.mark.parametrize(
    ("device", "slope", "lr"),
    [
        ("cpu", 1e34, 1e-36),  # 65536 times it is above 3.4e38 and half of that is not: the end of float32
        pytest.param("cuda", 1.5, 0.01, marks=NEEDS_GPU),  # as with 65504, the end of half precision
    ],
)
def test_a_scaled_gradient_that_overflows_leaves_out_a_step(device, slope, lr):
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 2.0)
    optimizer = torch.optim.SGD(network.to(device).parameters(), lr=lr)
    batches = [{"image": torch.ones(2, 1), "label": torch.zeros(2, 1), "case": ["a", "b"]}] * 8
    engine = SupervisedTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=batches,
        network=network,
        optimizer=optimizer,
        loss_function=lambda pred, label: slope * pred.float().mean(),
        train_handlers=[RequireFinite(optimizer)],
        amp=True,
        amp_kwargs={"dtype": torch.float16},
        decollate=False,
    )

    @engine.on(Events.STARTED)  # MONAI's own, made when the run begins, is off where there is no GPU
    def _set_scaler(engine: Engine) -> None:
        engine.scaler = torch.amp.GradScaler(device, init_scale=65536.0)

    engine.run()
    assert engine.state.iteration == 8 and engine.scaler.get_scale() == 32768
    assert network.weight.item() == pytest.approx(2 - 7 * lr * slope)  # all steps but the first
