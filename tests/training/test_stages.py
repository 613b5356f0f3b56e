# SPDX-License-Identifier: Apache-2.0
"""Stages: a function of the epoch, put into force by a handler on a real engine."""

from collections import Counter

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.transforms import Compose
from torch import nn

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.data.slices import SliceDataset
from bundle.pyraseg.networks.pspnet import PSPNet
from bundle.pyraseg.networks.segmentation import PartwiseNetwork
from bundle.pyraseg.training.samplers import StagedSampler
from bundle.pyraseg.training.stages import StageHandler, StagePlan

STAGES = [
    {
        "name": "new",
        "epoch_fraction": 0.2,
        "learning_rates": {"head": 0.1},
        "patient_fraction": 0.2,
        "augmentation_strength": 0.3,
    },
    {
        "name": "all",
        "epoch_fraction": 0.4,
        "learning_rates": {"body": 0.01, "head": 0.05},
        "patient_fraction": 0.6,
        "augmentation_strength": 0.6,
    },
    {"name": "fine", "epoch_fraction": 0.4, "learning_rates": {"body": 0.02}},
]


# --- the plan ---


@pytest.mark.parametrize(
    ("max_epochs", "expected"),
    [
        (1, {"all": 1}),  # the middle of the only epoch lies at half of the training
        (3, {"new": 1, "all": 1, "fine": 1}),
        (5, {"new": 1, "all": 2, "fine": 2}),
        (12, {"new": 2, "all": 5, "fine": 5}),
        (100, {"new": 20, "all": 40, "fine": 40}),
    ],
)
def test_every_stage_gets_its_share_of_the_epochs_in_order(max_epochs, expected):
    names = [StagePlan(STAGES).at(epoch, max_epochs).name for epoch in range(1, max_epochs + 1)]
    assert Counter(names) == expected
    assert names == [name for name, count in expected.items() for _ in range(count)]


@pytest.mark.parametrize("shares", [(0.2, 0.4, 0.4), (1 / 3, 1 / 3, 1 / 3), (0.1, 0.1, 0.8)])
@pytest.mark.parametrize("max_epochs", [3, 7, 10, 12, 64, 301])
def test_no_share_misses_by_an_epoch(shares, max_epochs):
    plan = StagePlan([{**stage, "epoch_fraction": share} for stage, share in zip(STAGES, shares, strict=True)])
    counts = Counter(plan.at(epoch, max_epochs).name for epoch in range(1, max_epochs + 1))
    for stage in plan.stages:
        assert abs(counts[stage.name] - stage.epoch_fraction * max_epochs) < 1


def test_the_stage_of_an_epoch_does_not_depend_on_what_was_asked_before():
    plan = StagePlan(STAGES)
    assert [plan.at(epoch, 10).name for epoch in (9, 1, 5, 9)] == ["fine", "new", "all", "fine"]
    assert plan.at(11, 10).name == "fine"  # a run that is prolonged stays in the last stage


def test_the_length_of_the_training_may_be_more_than_the_trainer_knows():
    plan = StagePlan(STAGES, epochs=10)
    assert [plan.at(epoch, epoch + 1).name for epoch in (1, 2, 3, 6, 7, 10)] == [
        "new",
        "new",
        *["all"] * 2,
        *["fine"] * 2,
    ]


def test_what_a_stage_leaves_open_is_everything():
    stage = StagePlan(STAGES).at(10, 10)
    assert (stage.patient_fraction, stage.augmentation_strength) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [{"name": "a", "epoch_fraction": 1.0, "rate": {"head": 1}}],
            r"unknown fields \['rate'\] and lacks \['learning_rates'\]",
        ),
        ([{"epoch_fraction": 1.0, "learning_rates": {"head": 1}}], r"lacks \['name'\]"),
        ([STAGES[0], STAGES[1]], r"\[0.2, 0.4\], do not sum to 1"),
        ([], "do not sum to 1"),
        (
            [{"name": "a", "epoch_fraction": 1.0, "learning_rates": {}}],
            "'a': `learning_rates` must give a positive rate",
        ),
        (
            [{"name": "a", "epoch_fraction": "x", "learning_rates": {"head": 1}}],
            "`epoch_fraction` takes a number, not 'x'",
        ),
        ([{"name": "a", "epoch_fraction": 1.0, "learning_rates": {"head": "x"}}], "`head` takes a number, not 'x'"),
        (
            [{"name": "a", "epoch_fraction": 1.0, "learning_rates": {"head": 0}}],
            "'a': `learning_rates` must give a positive rate",
        ),
        (
            [{"name": "a", "epoch_fraction": 1.0, "learning_rates": {"head": 1}, "patient_fraction": 0}],
            "'a': `epoch_fraction` and `patient_fraction` lie in",
        ),
        (
            [{"name": "a", "epoch_fraction": 1.0, "learning_rates": {"head": 1}, "augmentation_strength": 2}],
            r"`augmentation_strength` in \[0, 1\]",
        ),
        ([{"name": "a", "epoch_fraction": 1.0, "learning_rates": {"head": 1}, "warm_up": 1}], r"`warm_up` in \[0, 1\)"),
        (
            [{"name": "a", "epoch_fraction": 1.0, "learning_rates": {"head": 1}, "schedule": "step"}],
            "one of .'cosine', 'poly'., not 'step'",
        ),
        (
            [{"name": "a", "epoch_fraction": 1.0, "learning_rates": {"head": 1}, "patience": 0}],
            "`patience` is a number of validations",
        ),
        (
            [{"name": "a", "epoch_fraction": 1.2, "learning_rates": {"head": 1}}],
            "'a': `epoch_fraction` and `patient_fraction` lie in",
        ),
    ],
)
def test_refused_plans(stages, message):
    with pytest.raises(PyrasegError, match=message):
        StagePlan(stages)


# --- the handler ---


class Network(PartwiseNetwork):
    """Two parts with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(image))


def empty_case(item: dict) -> dict:
    return {"image": np.zeros((1, 2, 2)), "label": np.zeros((1, 2, 2))}


@pytest.fixture
def sampler(tmp_path) -> StagedSampler:
    for n in range(10):
        (tmp_path / str(n)).touch()
    items = [{"image": str(tmp_path / str(n)), "label": str(tmp_path / str(n)), "patient": str(n)} for n in range(10)]
    dataset = SliceDataset(items, empty_case, augmentation=Compose([]), cache_dir=tmp_path / "cache")
    return StagedSampler(dataset, samples_per_epoch=50)


class Run:
    """A training whose engine records what holds in every epoch."""

    def __init__(self, sampler: StagedSampler) -> None:
        torch.manual_seed(0)
        self.network = Network()
        self.optimizer = torch.optim.AdamW(self.network.parameter_groups(), weight_decay=0.1)
        self.sampler = sampler
        self.engine = Engine(self.step)
        StageHandler(StagePlan(STAGES), network=self.network, optimizer=self.optimizer, sampler=sampler).attach(
            self.engine
        )
        self.rates: dict[int, dict[str, float]] = {}
        self.changed: dict[int, set[str]] = {}
        self.draws: dict[int, list] = {}
        self.engine.add_event_handler(Events.EPOCH_STARTED, self.before)
        self.engine.add_event_handler(Events.ITERATION_STARTED, self.note_rates)
        self.engine.add_event_handler(Events.EPOCH_COMPLETED, self.after)

    def step(self, engine: Engine, batch: torch.Tensor) -> None:
        self.network.train()  # as MONAI's trainer does at every iteration
        self.optimizer.zero_grad()
        self.network(batch).square().mean().backward()
        self.optimizer.step()

    def before(self, engine: Engine) -> None:
        self.state = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.draws[engine.state.epoch] = list(self.sampler)

    def note_rates(self, engine: Engine) -> None:
        self.rates[engine.state.epoch] = {group["name"]: group["lr"] for group in self.optimizer.param_groups}

    def after(self, engine: Engine) -> None:
        now = self.network.state_dict()
        self.changed[engine.state.epoch] = {name for name in now if not torch.equal(now[name], self.state[name])}

    def run(self, *, first: int = 1, epochs: int = 5) -> "Run":
        images = torch.randn(3, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1)) + 1
        if first > 1:
            self.engine.load_state_dict({"iteration": (first - 1) * 3, "epoch_length": 3, "max_epochs": epochs})
        self.engine.run(images, max_epochs=epochs)
        return self


def test_parts_outside_the_stage_are_bit_identical_buffers_included(sampler):
    run = Run(sampler).run()
    state = set(run.network.state_dict())
    body, head = ({name for name in state if name.startswith(part)} for part in ("body", "head"))
    assert "body.1.running_mean" in body and "head.1.num_batches_tracked" in head
    assert run.changed == {1: head, 2: state, 3: state, 4: body, 5: body}


def test_rates_are_those_of_the_stage_and_zero_where_a_part_is_frozen(sampler):
    new, every, fine = {"body": 0.0, "head": 0.1}, {"body": 0.01, "head": 0.05}, {"body": 0.02, "head": 0.0}
    assert Run(sampler).run().rates == {1: new, 2: every, 3: every, 4: fine, 5: fine}


def test_the_sampler_is_told_the_epoch_the_share_and_the_strength(sampler):
    draws = Run(sampler).run().draws
    assert [len({draw.case for draw in draws[epoch]}) for epoch in range(1, 6)] == [2, 6, 6, 10, 10]
    assert [{draw.strength for draw in draws[epoch]} for epoch in range(1, 6)] == [{0.3}, {0.6}, {0.6}, {1.0}, {1.0}]
    assert draws[2] != draws[3] and draws[4] != draws[5]


@pytest.mark.parametrize("first", [2, 3, 4, 5])
def test_a_run_that_starts_at_any_epoch_finds_its_stage(sampler, first):
    whole, resumed = Run(sampler).run(), Run(sampler).run(first=first)
    for record in ("rates", "changed", "draws"):
        assert getattr(resumed, record) == {n: v for n, v in getattr(whole, record).items() if n >= first}


def test_a_part_that_the_network_lacks_is_refused(sampler):
    network = Network()
    optimizer = torch.optim.AdamW(network.parameter_groups())
    plan = StagePlan([{"name": "a", "epoch_fraction": 1.0, "learning_rates": {"encoder": 0.1}}])
    with pytest.raises(PyrasegError, match=r"'a' gives a rate to \['encoder'\]; the network's parts are \['body', 'he"):
        StageHandler(plan, network=network, optimizer=optimizer, sampler=sampler)


LEVEL = {"name": "level", "epoch_fraction": 0.5, "learning_rates": {"head": 1.0}}
FALLING = {"name": "falling", "epoch_fraction": 0.5, "learning_rates": {"body": 0.2, "head": 1.0}}


def test_rates_stay_where_a_stage_says_nothing():
    plan = StagePlan([LEVEL, FALLING])
    assert {plan.learning_rates(epoch, 8, done=done)["head"] for epoch in range(1, 9) for done in (0, 0.5, 1)} == {1.0}


@pytest.mark.parametrize(
    ("schedule", "shape"), [("cosine", lambda t: (1 + np.cos(np.pi * t)) / 2), ("poly", lambda t: (1 - t) ** 0.9)]
)
@pytest.mark.parametrize("warm_up", [0.0, 0.25])
def test_rates_rise_and_fall_within_a_stage(schedule, shape, warm_up):
    plan = StagePlan([LEVEL, {**FALLING, "final_lr_factor": 0.1, "warm_up": warm_up, "schedule": schedule}])
    assert plan.learning_rates(4, 8) == {"head": 1.0}
    for epoch in range(5, 9):
        for done in (0.01, 0.5, 1.0):
            passed = (epoch - 5 + done) / 4
            fallen = 0.1 + 0.9 * shape((passed - warm_up) / (1 - warm_up)) if passed >= warm_up else passed / warm_up
            assert plan.learning_rates(epoch, 8, done=done) == pytest.approx({"body": 0.2 * fallen, "head": fallen})
    assert plan.learning_rates(8, 8, done=1.0)["head"] == pytest.approx(0.1)


def test_the_rate_of_an_iteration_is_that_of_its_middle(sampler):
    plan = StagePlan([{"name": "only", "epoch_fraction": 1.0, "learning_rates": {"head": 1.0}, "warm_up": 0.5}])
    network = Network()
    optimizer = torch.optim.AdamW(plan.parameter_groups(network))
    rates: list[float] = []
    engine = Engine(lambda engine, batch: rates.append(optimizer.param_groups[1]["lr"]))
    StageHandler(plan, network=network, optimizer=optimizer, sampler=sampler).attach(engine)
    engine.run([0, 1], max_epochs=4)
    assert rates == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1, 1, 1])


def test_layers_of_the_encoder_learn_the_slower_the_nearer_they_are_to_the_image(sampler):
    network = PSPNet(encoder="resnet18", pretrained=False, bottleneck=8)
    plan = StagePlan(
        [{"name": "a", "epoch_fraction": 1.0, "learning_rates": {"encoder": 1.0, "head": 3.0}, "layer_decay": 0.5}]
    )
    optimizer = torch.optim.AdamW(plan.parameter_groups(network))
    engine = Engine(lambda engine, batch: None)
    StageHandler(plan, network=network, optimizer=optimizer, sampler=sampler).attach(engine)
    engine.run([0], max_epochs=1)
    stages = {f"encoder.stages.{n}": 0.5 ** (3 - n) for n in range(4)}
    expected = {"pyramid": 0.0, "head": 3.0, "encoder.stem": 0.5**4, **stages}
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == pytest.approx(expected)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))


@pytest.mark.parametrize("max_epochs", [3, 12, 40])
def test_a_skip_leads_to_the_next_stage(max_epochs):
    whole = StagePlan(STAGES)
    for epoch in range(1, max_epochs + 1):
        plan = StagePlan(STAGES)
        left = plan.skip(epoch, max_epochs)
        assert (
            whole.at(epoch + left, max_epochs).name
            == plan.at(epoch, max_epochs).name
            == whole.at(epoch, max_epochs).name
        )
        assert plan.is_over(epoch, max_epochs) == (epoch + left == max_epochs)
        if not plan.is_over(epoch, max_epochs):
            assert plan.at(epoch + 1, max_epochs).name != plan.at(epoch, max_epochs).name
            assert plan.learning_rates(epoch + 1, max_epochs) == whole.learning_rates(epoch + left + 1, max_epochs)


def test_a_finer_part_takes_the_rate_of_the_finest_name_that_holds_it(sampler):
    stages = [
        {"name": "top", "epoch_fraction": 0.5, "learning_rates": {"head": 0.3, "body.1": 0.2}},
        {"name": "all", "epoch_fraction": 0.5, "learning_rates": {"head": 0.3, "body": 0.1}},
    ]
    plan, network = StagePlan(stages), Network()
    optimizer = torch.optim.AdamW(plan.parameter_groups(network))
    assert [group["name"] for group in optimizer.param_groups] == ["body", "head", "body.1"]
    found: list[tuple[dict[str, float], bool, bool]] = []

    def step(engine: Engine, batch: int) -> None:
        rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
        found.append((rates, network.body[0].weight.requires_grad, network.body[1].weight.requires_grad))

    engine = Engine(step)
    StageHandler(plan, network=network, optimizer=optimizer, sampler=sampler).attach(engine)
    engine.run([0], max_epochs=2)
    assert found == [
        ({"body": 0.0, "head": 0.3, "body.1": 0.2}, False, True),
        ({"body": 0.1, "head": 0.3, "body.1": 0.1}, True, True),
    ]


def test_a_finer_part_without_a_group_of_its_own_is_refused(sampler):
    plan = StagePlan([{"name": "a", "epoch_fraction": 1.0, "learning_rates": {"body.1": 0.1}}])
    network = Network()
    with pytest.raises(PyrasegError, match=r"gives a rate to \['body.1'\].*plan.parameter_groups\(network\)"):
        optimizer = torch.optim.AdamW(network.parameter_groups())
        StageHandler(plan, network=network, optimizer=optimizer, sampler=sampler)


def test_a_stage_keeps_the_statistics_that_it_names(sampler):
    network = Network()
    optimizer = torch.optim.AdamW(network.parameter_groups())
    plan = StagePlan(
        [
            {
                "name": "a",
                "epoch_fraction": 1.0,
                "learning_rates": {"body": 0.1, "head": 0.1},
                "freeze_batch_norm": ["body"],
            }
        ]
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def step(engine: Engine, batch: torch.Tensor) -> None:
        network.train()(batch).square().mean().backward()
        optimizer.step()

    engine = Engine(step)
    StageHandler(plan, network=network, optimizer=optimizer, sampler=sampler).attach(engine)
    engine.run(torch.randn(3, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1)) + 1)
    kept = {name for name, value in network.state_dict().items() if torch.equal(value, before[name])}
    assert kept == {"body.1.running_mean", "body.1.running_var", "body.1.num_batches_tracked"}
