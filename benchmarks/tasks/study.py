# SPDX-License-Identifier: Apache-2.0
"""The trainings of the record: which tasks and networks there are, how long each is, and where it is kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tasks.networks import networks_of
from benchmarks.trials import CONFIGS, Bench, Trial
from bundle.pyraseg.core import PyrasegError, task_files
from bundle.pyraseg.workflow import merge_files

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
TASKS = ("dermoscopy", "lungs", "vessels", "heart", "nerves", "hippocampus")


def results_of(share: float, root: Path = RESULTS) -> Path:
    """Return the folder of the results of trainings of a share of their length.

    >>> results_of(1).name, results_of(0.25).name
    ('tasks', 'tasks_share_0.25')
    """
    return root / ("tasks" if share == 1 else f"tasks_share_{share:g}")


def config_of(task: str) -> dict[str, Any]:
    """Return the config of a task's training, merged, as it is written."""
    return merge_files(task_files(CONFIGS, "train", task))


def shortened(config: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Return the changes that make a training a share of its length: fewer epochs, of about as many samples.

    Args:
        config: of the training; `epochs`, `samples_per_epoch` and `val_interval` are numbers.
        share: of the samples that are left in all, above 0; 1 changes nothing.

    >>> shortened({"epochs": 30, "samples_per_epoch": 512, "val_interval": 5}, 0.25)
    {'epochs': 8, 'samples_per_epoch': 480, 'val_interval': 5}

    Raises:
        PyrasegError: the share is not above 0, or above 1.
    """
    if not 0 < share <= 1:
        raise PyrasegError(f"The share of a training's length is above 0 and at most 1, not {share}.")
    if share == 1:
        return {}
    epochs = max(1, round(config["epochs"] * share))
    samples = round(config["epochs"] * config["samples_per_epoch"] * share / epochs)
    return {"epochs": epochs, "samples_per_epoch": samples, "val_interval": min(config["val_interval"], epochs)}


def trials(task: str, seeds: Sequence[int], only: Sequence[str] | None = None) -> list[Trial]:
    """Return the trainings of a task: all networks with the first seed, then all with the next.

    Raises:
        PyrasegError: a name in `only` is that of no network of the task.
    """
    found = networks_of(config_of(task))
    unknown = sorted(set(only or ()) - set(found))
    if unknown:
        raise PyrasegError(f"Among the networks of {task} there is no {unknown}. There are {list(found)}.")
    return [Trial(task, name, found[name], seed) for seed in seeds for name in only or found]


def bench(
    task: str, data: Path, *, share: float, work: Path, cache: Path, results: Path, options: Mapping[str, Any]
) -> Bench:
    """Return what all trainings of a task share.

    Args:
        task: one of `TASKS`.
        data: folder with one folder a task.
        share: see `shortened`.
        work: folder of weights, by length, task and network.
        cache: folder of prepared images.
        results: folder of the results of trainings of every length.
        options: keys of the config that are changed in all trainings.

    Raises:
        PyrasegError: the data of the task are not there.
    """
    folder = data / task
    if not folder.is_dir():
        raise PyrasegError(f"There is no folder {folder}: --data names a folder with one folder a task.")
    config = config_of(task) | dict(options)
    kept = results_of(share, results)
    options = {"num_workers": 0} | dict(options) | shortened(config, share)
    return Bench(task, folder.resolve(), work / kept.name, kept, cache, options=options)
