# SPDX-License-Identifier: Apache-2.0
"""What each process of a small training leaves behind, for test_parallel.py; torchrun starts it with a folder."""

import sys
import time
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from torch import nn
from torch.utils.data import DataLoader

from bundle.pyraseg.core import gather, in_turn, process_count, process_rank, start_processes, stop_processes
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.evaluation.scores import CaseOverlap
from bundle.pyraseg.networks.segmentation import PartwiseNetwork
from bundle.pyraseg.training.iterations import AveragedWeights, SeedEpochs
from bundle.pyraseg.training.parallel import CaseShare, KeepInStep, distribute
from bundle.pyraseg.workflow.running import plain_console

CASES = 5
EPOCHS = 4
CLASSES = ["background", "one", "two"]
#: The parts that learn in each epoch: one is let loose in mid-run, one is frozen again.
LEARNING = [["head"], ["body", "head"], ["body", "head"], ["body"]]


class Network(PartwiseNetwork):
    """Two parts, one of them with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.head = nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 3, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(image))


def batches() -> torch.Tensor:
    """Return (steps, 4, 1, 8, 8) images; with two processes, each takes every other of a batch."""
    return torch.randn(3, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1)) + 1


def train() -> dict:
    """Train with parts that come and go; return what each epoch ends with: weights, their average, a random number."""
    torch.manual_seed(0)
    network = Network()
    wrapped = distribute(network)
    optimizer = torch.optim.AdamW(network.parameter_groups(), lr=0.01)
    states, averages, drawn = [], [], []

    def step(engine: Engine, batch: torch.Tensor) -> None:
        wrapped.train()
        optimizer.zero_grad()
        wrapped(batch[process_rank() :: process_count()]).square().mean().backward()
        optimizer.step()

    trainer = Engine(step)
    averaged = AveragedWeights(network, ema_decay=0.5)
    averaged.attach(trainer)
    SeedEpochs(0).attach(trainer)
    KeepInStep(network, average=averaged.network).attach(trainer)

    @trainer.on(Events.EPOCH_STARTED)
    def _start(engine: Engine) -> None:
        network.learn_only(LEARNING[engine.state.epoch - 1])

    @trainer.on(Events.EPOCH_COMPLETED)
    def _keep(engine: Engine) -> None:
        drawn.append(torch.rand(1).item())
        states.append({name: value.clone() for name, value in network.state_dict().items()})
        averages.append({name: value.clone() for name, value in averaged.network.state_dict().items()})

    trainer.run(list(batches()), max_epochs=EPOCHS)
    return {"states": states, "averages": averages, "drawn": drawn}


def cases() -> list[dict[str, torch.Tensor]]:
    """Return random predictions and truths, a third of which lack the last class."""
    random = torch.Generator().manual_seed(2)
    return [
        {name: torch.randint(3 if index % 3 else 2, (1, 9, 9), generator=random) for name in ("image", "label")}
        for index in range(CASES)
    ]


def evaluate(data: list[dict[str, torch.Tensor]]) -> dict:
    """Return the score and the counts of all cases, of which this process sees its share."""
    share = CaseShare(data, rank=process_rank(), processes=process_count())
    metric = IgniteMetricHandler(
        metric_fn=CaseOverlap(CLASSES, cases=data),
        output_transform=from_engine(["pred", "label"]),
        save_details=True,
    )
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(data, sampler=share),
        network=nn.Identity(),
        key_val_metric={"dice": metric},
    )
    evaluator.run()
    state = evaluator.state
    return {"score": state.metrics["dice"], "counts": state.metric_details["dice"], "mine": [*share]}


def take_turns(folder: Path) -> list[str]:
    """Return what this process finds written when its turn comes, and add to it."""
    with in_turn():
        found = sorted(path.name for path in folder.glob("turn_*"))
        time.sleep(0.2)  # long enough for the other to come in between, if it could
        (folder / f"turn_{process_rank()}").touch()
    return found


def main() -> None:
    folder, fails = Path(sys.argv[1]), sys.argv[2:]
    plain_console()
    start_processes("cpu")
    if fails == ["all"]:
        raise PyrasegError("There is no data.")
    if fails == ["second"]:
        if process_rank() == 1:
            raise PyrasegError("One case is broken.")
        gather(None)  # the first one waits here for the second
    result = {
        "turns": [take_turns(folder), take_turns(folder)],
        "gathered": gather(f"p{process_rank()}"),
    }
    result |= {"training": train(), "evaluation": evaluate(cases()), "one case": evaluate(cases()[:1])}
    torch.save(result, folder / f"rank_{process_rank()}.pt")
    stop_processes()


if __name__ == "__main__":
    main()
