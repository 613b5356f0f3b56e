# SPDX-License-Identifier: Apache-2.0
"""Train two tasks briefly, for the same time of the processor each, and score both on the validation part."""

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow

from bundle.pyraseg.commands.places import config_files
from bundle.pyraseg.commands.run import run_config
from bundle.pyraseg.core import PyrasegError, file_digest, write_json
from bundle.pyraseg.workflow import read_config, verbatim

EPOCHS = 10  # of a brief training, so that its stages have their shares
TRIED = 10  # training steps before the training, of which the median is what a step takes
WARM = 4  # of them, that are not counted: memory is found and kernels are chosen
#: What the comparison decides, and options cannot.
DECIDED = (
    "epochs", "samples_per_epoch", "val_interval", "output_dir", "model_file", "resume", "num_workers", "patience",
)  # fmt: skip


class Contender:
    """A task, or overlays, that is trained briefly; what is finished is not done again.

    Args:
        names: of tasks and files of configs, laid over the base.
        folder: of all that its training writes.
        minutes: of the processor for the training steps.
        options: of the configs, as on a command line.
    """

    def __init__(self, names: Sequence[str], folder: Path, *, minutes: float, options: Mapping[str, Any]) -> None:
        self.names = list(names)
        self.folder = folder
        self.minutes = minutes
        self.options = dict(options)
        self.files, self.root = config_files(self.names)

    @property
    def evaluation(self) -> Path:
        """Return the folder of the scores on the validation part."""
        return self.folder / "evaluation"

    @property
    def cost(self) -> float:
        """Return the minutes of the processor that training steps have taken so far."""
        path = self.folder / "cost.json"
        return sum(json.loads(path.read_text(encoding="utf-8")).values()) / 60 if path.is_file() else 0.0

    @property
    def samples(self) -> int:
        """Return how many samples the training sees."""
        length = self._length()
        return length["epochs"] * length["samples_per_epoch"]

    def run(self) -> None:
        """Measure, train and score, or what of it is left to do."""
        if not (self.folder / "length.json").is_file():
            self._measure()
        if not (self.folder / "model.pt").is_file():
            self._train({**self._length(), "resume": True}, self.folder, self._record)
        if not (self.evaluation / "summary.json").is_file():
            self._score()

    def _length(self) -> dict[str, int]:
        return json.loads((self.folder / "length.json").read_text(encoding="utf-8"))

    def _measure(self) -> None:
        """Take a few steps of the training itself, and find out how many fit into the minutes."""
        batch = int(read_config(self.files, self._given()).get_parsed_content("batch_size"))
        clock = Clock()
        trial = {"epochs": 1, "samples_per_epoch": TRIED * batch}
        self._train(trial, self.folder / "trial", clock.attach)
        a_step = float(np.median(np.diff(clock.times)[WARM:]))
        steps = int(60 * self.minutes / a_step)
        if steps < 1:
            raise PyrasegError(
                f"A training step of {' '.join(self.names)} takes {a_step:.1f} s of the processor: {self.minutes:g} "
                "minutes have none. Give more --minutes."
            )
        epochs = min(EPOCHS, steps)
        write_json(self.folder / "length.json", {"epochs": epochs, "samples_per_epoch": steps // epochs * batch})

    def _record(self, trainer: Engine) -> None:
        """Write the seconds of every epoch, before its checkpoint: an epoch that is repeated replaces its own."""
        path = self.folder / "cost.json"
        costs = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        clock = Clock()
        clock.attach(trainer)

        @trainer.on(Events.ITERATION_COMPLETED)
        def write(engine: Engine) -> None:
            if engine.state.iteration % engine.state.epoch_length == 0:
                costs[str(engine.state.epoch)] = clock.seconds()
                write_json(path, costs)

    def _train(self, length: Mapping[str, Any], folder: Path, watch: Any) -> None:
        settings = {
            **self._given(),
            **length,
            "val_interval": length["epochs"],  # the last weights are compared, none chosen by the cases of the score
            "validate#dataset#data": "$@cases['validation'][:2]",
            "previews": 0,
            "output_dir": verbatim(folder.resolve()),
            "model_file": verbatim(folder.resolve() / "model.pt"),
        }

        def found(workflow: ConfigWorkflow) -> None:
            watch(workflow.parser.get_parsed_content("train#trainer"))

        run_config("training", self.files, self.root, settings, watch=found)

    def _score(self) -> None:
        files, root = config_files(self.names, program="evaluate")
        settings = {
            **self._given(),
            "validate#dataset#data": "$@cases['validation']",
            "report": False,
            "uncertainty_rotations": [],
            "output_dir": verbatim(self.evaluation.resolve()),
            "model_file": verbatim(self.folder.resolve() / "model.pt"),
        }
        run_config("evaluating", files, root, settings)

    def _given(self) -> dict[str, Any]:
        return {"bundle_root": verbatim(self.root), **self.options, "num_workers": 0}


class Clock:
    """Measure the seconds of the processor that this process spends between an epoch's start and its last steps."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def attach(self, trainer: Engine) -> None:
        trainer.add_event_handler(Events.EPOCH_STARTED, self._begin)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._step)

    def seconds(self) -> float:
        """Return the seconds of the epoch's steps so far."""
        return self.times[-1] - self.times[0]

    def _begin(self) -> None:
        self.times = [time.process_time()]

    def _step(self) -> None:
        self.times.append(time.process_time())


def contest(
    first: Sequence[str], second: Sequence[str], folder: Path, *, minutes: float, options: Mapping[str, Any]
) -> tuple[Contender, Contender]:
    """Train and score two contenders, or go on where a run of the same ended, and return them.

    Args:
        first: tasks and files of the one.
        second: of the other.
        folder: of both.
        minutes: of the processor, for the training steps of each.
        options: of the configs.

    Raises:
        PyrasegError: an option is one that the comparison decides, or the folder holds another comparison.
    """
    decided = [name for name in options if name in DECIDED]
    if decided:
        raise PyrasegError(f"The comparison decides {', '.join(decided)} itself: leave out --{decided[0]}.")
    asked = {"first": list(first), "second": list(second), "minutes": minutes, "options": dict(options)}
    asked |= {"configs": [file_digest(file) for names in (first, second) for file in config_files(names)[0]]}
    before = folder / "comparison.json"
    if before.is_file() and (was := json.loads(before.read_text(encoding="utf-8"))) != asked:
        other = ", ".join(key for key in asked if was.get(key) != asked[key])
        raise PyrasegError(f"{folder} holds another comparison, with another {other}. Give another --output.")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(before, asked)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that the time of the processor is that of a clock on an idle machine
    try:
        both = [
            Contender(names, folder / place, minutes=minutes, options=options)
            for place, names in (("first", first), ("second", second))
        ]
        for contender in both:
            contender.run()
    finally:
        torch.set_num_threads(threads)
    return both[0], both[1]


def verdict(row: Mapping[str, Any], names: Sequence[str], *, unit: str = "patients") -> tuple[int | None, str]:
    """Return which of two is ahead, 0 or 1, or None where the interval holds 0; and a sentence.

    Args:
        row: of `compare`, first - second.
        names: of the two.
        unit: over what the interval is.

    >>> row = {"class": "liver", "difference": -0.03, "low": -0.05, "high": -0.01, "patients": 26, "reliable": True}
    >>> verdict(row, ["slices", "volumes"])
    (1, 'volumes is ahead: Dice of liver +0.030 [+0.010, +0.050] over 26 patients of the validation part.')
    """
    what = "mean Dice" if row["class"] == "mean" else f"Dice of {row['class']}"
    ahead = 0 if row["low"] > 0 else 1 if row["high"] < 0 else None
    sign = -1 if ahead == 1 else 1
    low, high = sorted((sign * row["low"], sign * row["high"]))
    figures = f"{what} {sign * row['difference']:+.3f} [{low:+.3f}, {high:+.3f}] over {row['patients']} {unit}"
    doubt = "" if row["reliable"] else " With so few, the interval is too narrow."
    if ahead is None:
        return None, f"The two cannot be told apart: {names[0]} - {names[1]}, {figures} of the validation part.{doubt}"
    return ahead, f"{names[ahead]} is ahead: {figures} of the validation part.{doubt}"


def command_line(command: str, names: Sequence[str], options: Mapping[str, Any]) -> str:
    """Return a command of `pyraseg` as one types it.

    >>> command_line("train", ["mine.json"], {"dataset_dir": "my data", "pool_sizes": [1, 2]})
    "pyraseg train mine.json --dataset_dir 'my data' --pool_sizes '[1, 2]'"
    """
    words = ["pyraseg", command, *names]
    for key, value in options.items():
        words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    return shlex.join(words)
